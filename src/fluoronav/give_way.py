"""A process of work that may wait: it runs while nobody else wants the core."""

from __future__ import annotations

import os

_NICE = 19  # the lowest, where a system has no idle class


def give_way() -> None:
    """Puts the calling process below every other.

    A niced process keeps a core for some ms after the frame path wants it; one of the idle class (sched(7)) never does.
    """
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif hasattr(os, "nice"):
        os.nice(_NICE)
