"""The computer that a bench runs on, as Linux describes it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from fluoronav.lab import kernels

_CPUINFO = Path("/proc/cpuinfo")
# Names in JSON, and the flag of each in Linux.
_INSTRUCTION_SETS = {
    "avx2": "avx2", "avx_vnni": "avx_vnni", "avx512f": "avx512f", "avx512_vnni": "avx512_vnni", "amx": "amx_tile",
}  # fmt: skip
_WORDS = {
    "avx2": "AVX2", "avx_vnni": "AVX-VNNI", "avx512f": "AVX-512F", "avx512_vnni": "AVX-512 VNNI", "amx": "AMX",
}  # fmt: skip


def processor_name() -> str:
    """Model of this computer's processor."""
    return _cpuinfo("model name") or platform.processor()


def processor_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def instruction_sets() -> list[str]:
    """Those of avx2, avx_vnni, avx512f, avx512_vnni and amx that the processor has; empty where Linux does not tell."""
    flags = _cpuinfo("flags").split()
    return [name for name, flag in _INSTRUCTION_SETS.items() if flag in flags]


def description() -> dict[str, Any]:
    """What a bench's JSON says of the computer.

    Returns
    -------
    dict
        ``cpu``, ``cores``, ``system``, ``instruction_sets`` of the processor, ``kernels`` (for what Numba compiles in
        this process), and ``networks``: what ONNX Runtime uses.
    """
    return {
        "cpu": processor_name(),
        "cores": processor_cores(),
        "system": platform.platform(),
        "instruction_sets": instruction_sets(),
        "kernels": kernels.compiled_for(),
        "networks": kernels.NETWORKS,
    }


def words(described: dict[str, Any]) -> list[str]:
    """A description as lines for people."""
    has, compiled = described["instruction_sets"], described["kernels"]
    there, missing = (", ".join(w for n, w in _WORDS.items() if (n in has) is known) for known in (True, False))
    sets = f"with {there}; without {missing or 'none'}" if has else "with instruction sets that are not known"
    compiled_for = _WORDS.get(compiled["instruction_set"], "less than AVX2")
    return [
        f"processor: {described['cpu']}, {described['cores']} cores, {sets}",
        f"kernels: compiled for {compiled_for} ({compiled['cpu']}); networks: {described['networks']}",
    ]


def _cpuinfo(key: str) -> str:
    """First value of a key; empty where there is none."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() == key), "")
