"""Whether a picture is new: a detector's noise never repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# So many rows are compared with those of the frame before.
_COMPARED_ROWS = 4
# Weight of the newest period in the mean, and the longest that counts, s: a pause is no slow pulse.
_LEARNED, _LONGEST_PERIOD_S = 0.2, 2.0


class PictureRepeats:
    """Tells a new picture from one that comes again to the last bit.

    Attributes
    ----------
    changed_at : float
        When the picture changed last, by the monotonic clock, s; 0 before the first.
    period_s : float
        Mean time between two pictures.
    """

    def __init__(self) -> None:
        self._rows: NDArray[Any] | None = None
        self._changed_at_ns = 0
        self.changed_at = self.period_s = 0.0

    def unchanged_ms(self, counts: NDArray[Any], now: float, t_recv: int) -> float:
        """For how long the picture has been the same, ms; 0 for a new one.

        Parameters
        ----------
        counts : ndarray, shape (rows, cols)
        now : float
            By the monotonic clock, s.
        t_recv : int
            ns since the epoch.
        """
        apart = max(len(counts) // _COMPARED_ROWS, 1)
        rows = counts[apart // 2 :: apart]
        if self._rows is not None and np.array_equal(rows, self._rows):
            return (t_recv - self._changed_at_ns) / 1e6
        if self._rows is None or self._rows.shape != rows.shape or self._rows.dtype != rows.dtype:
            self._rows = np.empty_like(rows)
        np.copyto(self._rows, rows)
        if self.changed_at:
            self.period_s += _LEARNED * (min(now - self.changed_at, _LONGEST_PERIOD_S) - self.period_s)
        self.changed_at, self._changed_at_ns = now, t_recv
        return 0.0
