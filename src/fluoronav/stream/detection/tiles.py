"""The tiles of a frame that the first network looks at one by one, and when each is due.

A look at a tile costs two fifths of a look at the whole frame. Four tiles overlap, so that a tip in the middle part of
a tile has as much around it as the network needs. What the tiles show is kept in one set of maps of the whole frame: a
shaft is traced on into tiles that an earlier frame has filled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.detection.network_input import INPUT_PX, MAP_PX

Float = NDArray[np.float64]

TILE_PX = 160  # side of a tile in the network's input
TILE_MAP_PX = TILE_PX * MAP_PX // INPUT_PX  # side of its output maps
_STEP_PX = INPUT_PX - TILE_PX  # from one tile to the next
_TO_MAP = MAP_PX / INPUT_PX


@dataclass(frozen=True)
class TileLimits:
    """How much of a tile is used, and how often each is looked at; pixels are those of the maps."""

    # Chosen: with 16 the tips of 200 scenes had the probabilities of a whole look, with 0 one in twenty was lost.
    unused_px: int = 8  # along an inner border: not written to the maps
    unproposed_px: int = 11  # along an inner border: no tip is proposed there, since another tile shows it better
    whole_every_ms: float = 150.0  # all tiles are looked at within this; chosen: a new instrument is seen in 200 ms
    overdue_ms: float = 200.0  # a tile not looked at for so long calls for a whole look
    max_tiles: int = 2  # of one frame: a whole look takes less than three


LIMITS = TileLimits()


@dataclass(frozen=True)
class Tile:
    """A tile, by its place in the network's input and in the maps.

    Attributes
    ----------
    row, col : int
        Its upper left corner in the input.
    written, proposed : tuple of slice
        (rows, columns) of the maps that it fills, and in which it proposes tips.
    """

    row: int
    col: int
    written: tuple[slice, slice]
    proposed: tuple[slice, slice]

    @property
    def source(self) -> tuple[slice, slice]:
        """(rows, columns) of the tile's own maps that go to `written`."""
        first_row, first_col = round(self.row * _TO_MAP), round(self.col * _TO_MAP)
        rows, cols = self.written
        return (
            slice(rows.start - first_row, rows.stop - first_row),
            slice(cols.start - first_col, cols.stop - first_col),
        )

    def shows(self, x: float, y: float) -> bool:
        """Whether it proposes tips at a place of the maps (column, row)."""
        rows, cols = self.proposed
        return rows.start - 0.5 <= y < rows.stop - 0.5 and cols.start - 0.5 <= x < cols.stop - 0.5


def _span(first_px: int, unused_px: int) -> slice:
    """Rows or columns of the maps that a tile is used for, from its first row or column in the input."""
    first, last = round(first_px * _TO_MAP), round((first_px + TILE_PX) * _TO_MAP)
    return slice(first + (unused_px if first > 0 else 0), last - (unused_px if last < MAP_PX else 0))


def _tile(row: int, col: int) -> Tile:
    written, proposed = (
        (_span(row, unused), _span(col, unused)) for unused in (LIMITS.unused_px, LIMITS.unproposed_px)
    )
    return Tile(row, col, written, proposed)


TILES = tuple(_tile(row, col) for row in (0, _STEP_PX) for col in (0, _STEP_PX))


class TileSchedule:
    """Which tiles a frame looks at, so that every tile of the field is looked at often enough."""

    def __init__(self) -> None:
        self._in_field = list(range(len(TILES)))
        self._looked_ns: list[int | None] = [None] * len(TILES)
        self._looked_in = [0] * len(TILES)  # the number of the frame
        self._last_ns: int | None = None
        self._frames = 0
        self._period_ms = 0.0

    def set_field(self, field_mask: NDArray[np.bool_]) -> None:
        """Takes the field of view, of the shape of the maps; tiles without any of it are never looked at."""
        self._in_field = [k for k, tile in enumerate(TILES) if field_mask[tile.proposed].any()]

    @property
    def outside(self) -> list[int]:
        """Tiles without any of the field."""
        return [k for k in range(len(TILES)) if k not in self._in_field]

    def begin(self, now_ns: int) -> None:
        """A frame begins.

        Parameters
        ----------
        now_ns : int
            When it was exposed, ns; frames that are all of one time count as they come.
        """
        if self._last_ns is not None and now_ns > self._last_ns:
            self._period_ms = (now_ns - self._last_ns) / 1e6
        self._last_ns = now_ns
        self._frames += 1

    def due(self, wanted: Iterable[int]) -> list[int] | None:
        """Tiles for this frame, the most urgent first; None where a whole look is due.

        Parameters
        ----------
        wanted : iterable of int
            Tiles that a track needs looked at.
        """
        if self.overdue:
            return None
        by_age, needed = self._by_age(), [k for k in sorted(set(wanted)) if k in self._in_field]
        share = by_age[: max(int(np.ceil(len(by_age) * self._period_ms / LIMITS.whole_every_ms)), 1)]
        chosen = share + [k for k in needed if k not in share]
        if len(chosen) <= LIMITS.max_tiles:
            return chosen
        # The others can wait for another frame.
        patient = self._age_ms(by_age[0]) + self._period_ms <= LIMITS.whole_every_ms
        return needed if patient and len(needed) <= LIMITS.max_tiles else None

    def oldest(self) -> list[int]:
        """As many tiles as a frame may have, those first that were not looked at for longest."""
        return self._by_age()[: LIMITS.max_tiles]

    @property
    def overdue(self) -> bool:
        """Whether a tile of the field was not looked at for too long, or never."""
        return any(self._age_ms(k) > LIMITS.overdue_ms for k in self._in_field)

    def looked(self, tiles: Iterable[int]) -> None:
        """Tiles were looked at in this frame."""
        for k in tiles:
            self._looked_ns[k], self._looked_in[k] = self._last_ns, self._frames

    def _by_age(self) -> list[int]:
        return sorted(self._in_field, key=lambda k: self._looked_in[k])

    def _age_ms(self, tile: int) -> float:
        looked_ns, now_ns = self._looked_ns[tile], self._last_ns
        return float("inf") if looked_ns is None or now_ns is None else abs(now_ns - looked_ns) / 1e6


def tiles_at(x: float, y: float) -> list[int]:
    """Tiles that propose tips at a place of the maps (column, row)."""
    return [k for k, tile in enumerate(TILES) if tile.shows(x, y)]
