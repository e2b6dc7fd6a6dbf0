"""What kernels are compiled for: a level of the x86-64 instruction set, so that one cache serves many processors."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numba.core.config

config: Any = numba.core.config  # Numba writes its names while it is imported

_V2 = frozenset({"cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
# Instructions of each level, highest first: System V psABI for AMD64, section 3.1.1, in LLVM's names.
LEVELS: dict[str, frozenset[str]] = {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2}
USUAL_LEVELS = ("x86-64-v3", "x86-64-v4")
"""Levels of the processors that are sold: with AVX2 alone, and with AVX-512."""
_WORDS = {"x86-64-v4": "AVX-512", "x86-64-v3": "AVX2", "x86-64-v2": "SSE4.2"}


def in_words(target: str) -> str:
    """A target with what it is known by: "x86-64-v3 (AVX2)"."""
    return f"{target} ({_WORDS[target]})" if target in _WORDS else target


def level_of(features: set[str]) -> str | None:
    """The highest level whose instructions are all there; None below x86-64-v2, or on another architecture.

    Parameters
    ----------
    features : set of str
        Of a processor, in LLVM's names.
    """
    return next((level for level, needed in LEVELS.items() if needed <= features), None)


def host_features() -> set[str]:
    """Instructions that processor and operating system offer, in LLVM's names; empty where LLVM cannot tell."""
    try:
        return {name for name, there in llvm.get_host_cpu_features().items() if there}
    except RuntimeError:
        return set()


def usual_target() -> str | None:
    """What this process compiles for: `NUMBA_CPU_NAME` where it is set, else this processor's level.

    None leaves the choice to Numba, which takes the very processor.
    """
    return config.CPU_NAME or (level_of(host_features()) if config.ENABLE_AVX else None)


def use_level(target: str | None) -> None:
    """Has Numba compile for a target; works until the first kernel is defined.

    Numba takes a name for the order of instructions only, and all that this processor offers with it, unless the
    list of instructions is set as well: empty, it is what the name stands for.
    """
    if target is not None:
        config.CPU_NAME = target
        if config.CPU_FEATURES is None:
            config.CPU_FEATURES = ""


def this_target() -> str:
    """The name of what this process compiles for."""
    return config.CPU_NAME or llvm.get_host_cpu_name()


def described(target: str) -> tuple[str, str, str]:
    """Platform, processor and instructions of a target: what the machine code of a kernel depends on."""
    features = config.CPU_FEATURES
    if target != this_target():
        features = ""
    elif features is None:
        features = ",".join(sorted(host_features()))
    return llvm.get_process_triple(), target, features
