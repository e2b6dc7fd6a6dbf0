"""Gives memory back that a process no longer needs."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Frees cycles, and returns free pages to the system; glibc keeps what lies between pieces that are in use."""
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    # Another C library, as musl's, has no such function.
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
