from __future__ import annotations

import subprocess
import sys


def test_the_writer_process_stays_light() -> None:
    program = (
        "import sys, letterlockd.store.lmdb.committer\n"
        "heavy = {'asyncio', 'grpc', 'google', 'cryptography', 'pydantic', 'structlog'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
