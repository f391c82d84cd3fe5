"""How often Python looks for reference cycles: seldom, in processes that make few of them.

A busy process makes some ten containers a message and keeps them for a commit, so at the default
threshold (700) the collector walks live objects dozens of times a second and finds nothing. What
exists when a process begins to serve stays for good, and is not looked at again.
"""

from __future__ import annotations

import gc

__all__ = ["calm"]

_THRESHOLDS = 50_000, 20, 50
"""Lower costs a tenth of the gateway's time; higher lets the few cycles there are (failed tasks
and their tracebacks) hold memory for longer."""


def calm() -> None:
    """Call once, when the process is about to serve."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
