"""The pool of ratchet processes: the only room of the daemon that reaches `tripleratchet`.

    gateway ── pool ── lane ── link ═══ pipe ═══ child ── execute ── steps ── tripleratchet
               parent's half, asyncio                import-light, blocking, pure inside

The gateway imports `letterlockd.workers.pool` (WorkerPool, WorkerLost) and speaks in the messages
of letterlockd/records/v1/jobs.proto. Nothing is exported from here: importing the child must not
bring in the parent's half.
"""
