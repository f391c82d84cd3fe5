"""Bounds of the business contract and of its streams, each with what goes wrong on either side.

One place, so that the contract's comments, the checks and the tests can be held against each other.
Knows nothing of gRPC and of storage.
"""

from __future__ import annotations

MAX_PRE_KEY_ROTATION_DAYS = 30
"""A pre-key that is in use longer opens more first messages than there can be on the way."""

MAX_PRE_KEY_GRACE_DAYS = 60
"""Bundles and first messages live 30 days; twice that is for clients that hold bundles longer."""

MAX_STALE_SESSION_DAYS = 30
"""Then the peer may have destroyed the pre-keys that a session which was never answered names; the
ratchet refuses to send with it by itself."""

LAST_RESORT_USE_DAYS = MAX_PRE_KEY_ROTATION_DAYS + MAX_PRE_KEY_GRACE_DAYS
"""How long a use of a last-resort key is remembered: as long as any such key can live, or the relay
could replay a first message once it is forgotten."""

MAX_IDEMPOTENCY_KEY_CHARS = 64
"""A UUID, a ULID or a prefixed row id fits; the key is stored for the whole retention period with
every message, so a longer one would cost more than the status record it names."""

MAX_CALLER_TAG_BYTES = 128
"""Given back with each status update, so it is paid up to four times a message; room for a
reference, not for content."""

MAX_TEXT_BYTES = 16_384
"""The longest text that a padded ratchet message carries within one device envelope (64 KiB at the
relay) with room for its framing; longer texts belong into media."""

MAX_RECEIPT_IDS = 100
"""A screenful of messages read at once; a receipt costs one status change for each id."""

MESSAGE_ID_BYTES = 16
"""A UUID."""

MAX_EMOJI_BYTES = 64
"""The longest joined emoji sequences of Unicode take some 40 bytes."""

MIN_TIME_TO_LIVE_MS = 1_000
"""Below this the commit and the way to the relay alone may use it up."""

MAX_BATCH_MESSAGES = 256
"""Beyond some 256 messages a frame the cost of the frame is spread thin enough; a larger one only
holds up its neighbours on the event loop."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""256 texts of full length; also what one frame may hold in memory before flow control acts."""

MAX_UNANSWERED = 4_096
"""Messages of one Send stream that were taken in and not answered yet. At 5,000 messages/s and a
commit of 50 ms some 250 are open; far more only grows memory, far less idles the workers."""

PAUSE_UNANSWERED = MAX_UNANSWERED - MAX_BATCH_MESSAGES
"""Where reading pauses: a whole further batch still fits below `MAX_UNANSWERED`."""

RESUME_UNANSWERED = PAUSE_UNANSWERED * 4 // 5
"""Where reading goes on: well below the pause level, so that a stream at its bound does not switch
with every answer."""

DEFAULT_WINDOW = 1_000
"""Events out at a time when the caller does not say."""

MAX_WINDOW = 10_000
"""Events that one Receive stream may have out: what a caller that never acknowledges costs here
is one id each."""

MAX_ACK_IDS = 10_000
"""Event ids in one frame of acknowledgements: a whole window."""

MAX_FRAME_RESULTS = 256
"""Answers or events in one frame to the caller, as for batches."""

MAX_FRAME_BYTES = 1024 * 1024
"""Content in one frame of events: stays below the 4 MiB that gRPC clients accept by default, and
bounds what a slow reader has in our write buffer."""

MAX_KEY_ECHO_CHARS = 256
"""A malformed idempotency key is given back up to here, so that a caller can find its mistake but
cannot make us repeat megabytes."""

MAX_ROW_EVENTS = 256
"""Events of one inbox row: acknowledging a part of a row keeps one bit for each in memory."""

MAX_PARTIAL_ROWS = 65_536
"""Inbox rows of which a part is acknowledged, over all streams. Beyond it the oldest are forgotten
and their acknowledged events come again, marked as redelivered."""

MIN_LEASE_MS, DEFAULT_LEASE_MS, MAX_LEASE_MS = 1_000, 60_000, 600_000
"""How long an event is one stream's without a sign of life: shorter gives away what is worked on,
longer makes others wait for a stream that is dead without knowing."""

MAX_NACK_DELAY_MS = 600_000
"""A delay is kept in memory, with its conversation; for longer ones there are dead letters."""

MAX_CONSUMER_CHARS = 64
"""A host name or a UUID."""

DEFAULT_ATTEMPTS, MAX_ATTEMPTS = 10, 1_000
"""Failed attempts before an event becomes a dead letter. A lost stream is one for the oldest event
of each conversation on it: with a handful, restarting a backend a few times would do harm."""

MAX_KEEP_ACKNOWLEDGED_MS = 7 * 86_400_000
"""A week covers a long weekend's mistake; more would make the inbox an archive."""

MAX_WAITING_IN_CONVERSATION = 256
"""Events of one conversation that wait in memory for those before them; later ones are left in the
store. Fewer means reading it again more often."""

MAX_SET_ASIDE = 10_000
"""Events of one number that wait in memory, some 400 bytes each, before others are left in the
store."""

MAX_WAITING = 20_000
"""Where reading a number's inbox stops: only events that came back can make so many wait."""

MAX_REMEMBERED = 10_000
"""Events of one number of which it is kept that they were given, and how often, while no stream
receives. Beyond it the oldest are forgotten: they come unmarked, with attempts from 1."""

MAX_TAIL_ROWS, MAX_TAIL_BYTES = 512, 2 * 1024 * 1024
"""Freshly committed rows of one number that go to its streams without being read back. Beyond it,
when streams are slow, they are read from the store."""

TICK_MS = 100
"""How exactly leases and delays end; finer would have a number with thousands of them look through
all of them more often."""

MAX_PAGE, DEFAULT_PAGE = 1_000, 100
"""Things listed in one answer: businesses, audit entries, dead letters."""

LAST_SECOND = 253_402_300_799
"""The end of the year 9999, where google.protobuf.Timestamp ends."""

MAX_REPLAY_BYTES, MAX_REPLAY_PAGES = 1024 * 1024, 16
"""What one call of ReplayEvents puts back, and how many pages it looks through for that: one commit
that does not hold up those of messages."""

MAX_ROW_BYTES = 64 * 1024
"""Events of one inbox row together, unless a single one is larger: a row is read as a whole."""

READ_ROWS = 64
"""Inbox rows read at a time: some 4 MiB at most for each stream."""

DRAIN_SHARE = 0.8
"""Share of the process's drain time that open streams are told: they end by themselves, with OK,
before the server cuts what is left."""

REPLACE_WAIT_S = 1.0
"""How long a newer Receive stream waits for the older one's last acknowledgements to be committed:
without the wait those events would come twice, with a longer one a stuck store would hold it up."""

MAX_UNWRITTEN_FRAMES = 4
"""Frames other than events that wait to be written on one Receive stream before the gateway reads
no further on it: fewer may stop a caller that nacks twice and then reads, more cost memory."""

GONE_WAIT_S = 0.2
"""How long a half-closed Receive stream with events out waits for the news that it was cut off:
shorter may take a crash for an orderly end, longer makes others wait for those events."""

DRAIN_RETRY_MS = 1_000
"""When a caller that was told to go elsewhere may try here again."""

SAFETY_NUMBER_DIGITS = 60
"""Two halves of 30, as every Signal app shows it."""

MAX_SCANNED_BYTES = 256
"""A scanned safety number has 74 bytes; room for fields of later versions, and no more to parse."""
