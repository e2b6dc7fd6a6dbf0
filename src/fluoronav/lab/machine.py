"""The computer that a bench runs on, as Linux describes it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
# Names in reports, and the kernel's flag for each.
_INSTRUCTION_SETS = {"avx2": "avx2", "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "amx": "amx_tile"}


def processor_name() -> str:
    """Model of this computer's processor."""
    return _cpuinfo("model name") or platform.processor()


def processor_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def instruction_sets() -> list[str]:
    """Those of avx2, avx512f, avx512_vnni and amx that the processor has; empty where the system does not tell."""
    flags = _cpuinfo("flags").split()
    return [name for name, flag in _INSTRUCTION_SETS.items() if flag in flags]


def description() -> dict[str, Any]:
    """``cpu``, ``cores``, ``system`` and ``instruction_sets``, for the JSON of a bench."""
    return {
        "cpu": processor_name(),
        "cores": processor_cores(),
        "system": platform.platform(),
        "instruction_sets": instruction_sets(),
    }


def _cpuinfo(key: str) -> str:
    """First value of a key; empty where there is none."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() == key), "")
