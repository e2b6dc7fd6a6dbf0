"""Kernels: Numba functions compiled ahead of time, for a level of the instruction set, and kept in a cache."""

from fluoronav.kernels.target import use_level, usual_target

use_level(usual_target())  # before Numba makes its first function

from fluoronav.kernels.decorator import njit  # noqa: E402

__all__ = ["njit"]
