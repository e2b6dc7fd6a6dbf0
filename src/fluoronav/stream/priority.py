"""Threads that work beside the frame path take what it leaves."""

from __future__ import annotations

import os
import sys
import threading

_NICENESS = 10


def beside_the_frame_path() -> None:
    """Lowers the priority of the calling thread alone, as Linux can; elsewhere nothing changes.

    A picture for the display that took a core from the frame at hand would make it late. Not for the search for the
    patient: a surgeon waits for that. Give it to a `ThreadPoolExecutor` as its ``initializer``.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), _NICENESS))
