"""Kernels: Numba functions compiled ahead of time, for a level of the instruction set, and kept in a cache."""

from typing import Any

from fluoronav.kernels.target import use_level, usual_target

use_level(usual_target())  # before Numba makes its first function

from fluoronav.kernels.decorator import njit  # noqa: E402

__all__ = ["load_numba", "njit"]


def load_numba() -> None:
    """Loads the parts of Numba that the first kernel needs; to be called before several threads call kernels.

    They register types while they are loaded, and another thread that looks a type up meanwhile fails: "dictionary
    changed size during iteration". Takes 0.4 s the first time, nothing later.
    """
    from numba.core import boxing  # noqa: F401
    from numba.core.registry import cpu_target
    from numba.core.runtime import context  # noqa: F401

    target: Any = cpu_target
    target.typing_context.refresh()
    target.target_context.refresh()
