"""The LMDB engine of the storage port: one machine, one writer process, durable by fsync.

    front.py       LmdbStore: the port, in the daemon's process      (asyncio)
    link.py        requests to the committer and their answers       (asyncio)
    reader.py      reads from the memory map                         (front's process)
    folder.py      the data folder and its lock                      (front's process)
    committer.py   main of the writer process                        (no asyncio, no gRPC)
    engine.py      groups into transactions, growth, full disk       (writer process)
    prepare.py     kind, schema version, migrations at start         (writer process)
    transaction.py record and expiry index in step                   (writer process)
    schema.py      the drawn key tree                                (both)
    wire.py        frames between the two processes                  (both)
    verify.py      walks a store and reports what does not agree     (a tool's process)

The writer is a process because py-lmdb releases the interpreter lock around every put, and a
thread that does so beside a busy event loop waits a switch interval each time: 256 x 5 puts took
1.1 ms alone and 1,350 ms beside a busy loop.

This package imports nothing here, so that the writer process stays light.
"""
