"""The decorator that makes a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from fluoronav.kernels.cache import KernelCache


def njit(*, cache: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Like ``numba.njit``, with a cache that `fluoronav kernels build` can fill ahead of time.

    Parameters
    ----------
    cache : bool
        Keep what is compiled.
    **options
        Of ``numba.njit``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(**options)(function)
        if cache:
            dispatcher._cache = KernelCache(dispatcher)  # where Numba puts its own
        return dispatcher

    return decorate
