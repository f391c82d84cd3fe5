"""Installs the official client for Node, once, from its lock file.

Shared by tests and benchmarks, so it knows neither.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NODE_PEER = Path(__file__).parents[1] / "interop" / "node"
CURRENT_CLIENT = "libsignal-0.103"
LAST_WITHOUT_SPQR = "@signalapp/libsignal-client"
"""The two official clients, by the names that package.json gives them."""
LOCK_FILE = NODE_PEER / "package-lock.json"
_INSTALL_SECONDS = 110


def install_official_client() -> str | None:
    """What is missing for the official client to run, or None when it is ready."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "node and npm are needed for the official client"
    installed = NODE_PEER / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= LOCK_FILE.stat().st_mtime:
        return None
    command = [npm, "ci", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command,
        cwd=NODE_PEER,
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        return f"npm ci failed for the official client: {done.stderr[-400:]}"
    return None
