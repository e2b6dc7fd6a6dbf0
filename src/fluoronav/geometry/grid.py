"""The voxel grid in the header of a volume file, checked before voxels are read or memory is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GridLimits:
    """Limits of a volume's grid; all are chosen."""

    most_bytes: int = 2 * 2**30  # of the voxels in memory: 512 x 512 x 2048 at 4 bytes
    least_item_bytes: int = 4  # of a voxel in memory: values are interpolated as float32
    finest_mm: float = 0.01  # spacing: a tenth of what a clinical scanner resolves
    coarsest_mm: float = 20.0  # coarser than any volume that is navigated on
    most_cosine: float = 1e-3  # between two axes
    same_place_mm: float = 0.1  # between two descriptions, at any corner: above the rounding of float32


LIMITS = GridLimits()


class GridError(ValueError):
    """A grid that no volume of a patient has; the text names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class Grid:
    """Position of the voxels in the patient.

    Attributes
    ----------
    size : tuple of 3 int
        Voxels along each index, in the order (x, y, z) of the file.
    step_ct : ndarray, shape (3, 3)
        Columns: one step along each index, LPS mm.
    origin_ct : ndarray, shape (3,)
        Centre of the first voxel, LPS mm.
    """

    size: tuple[int, int, int]
    step_ct: Float
    origin_ct: Float

    @property
    def spacing_mm(self) -> Float:
        return np.linalg.norm(self.step_ct, axis=0)

    @property
    def direction(self) -> Float:
        """Columns: unit vectors along each index, LPS."""
        return self.step_ct / self.spacing_mm

    def corners_ct(self) -> Float:
        """The eight outermost voxel centres, LPS mm, shape (8, 3)."""
        index = np.array(list(np.ndindex(2, 2, 2))) * (np.array(self.size) - 1)
        return index @ self.step_ct.T + self.origin_ct


def check_grid(grid: Grid, path: Path) -> None:
    """Raises :class:`GridError` where no volume of a patient has such a grid."""
    spacing = grid.spacing_mm
    if min(grid.size) < 2:
        raise GridError(f"{path}: is {' x '.join(map(str, grid.size))} voxels; a volume needs at least 2 on each axis")
    if not np.isfinite(grid.step_ct).all() or not np.isfinite(grid.origin_ct).all():
        raise GridError(f"{path}: its place in the patient is not given in finite numbers")
    if spacing.min() < LIMITS.finest_mm or spacing.max() > LIMITS.coarsest_mm:
        raise GridError(
            f"{path}: voxel spacing {_rounded(spacing)} mm is not usable: it must lie between {LIMITS.finest_mm:g} and "
            f"{LIMITS.coarsest_mm:g} mm (is the file in another unit?)"
        )
    axes = grid.direction
    if np.abs(axes.T @ axes - np.eye(3)).max() > LIMITS.most_cosine:
        raise GridError(
            f"{path}: its axes are not perpendicular to each other (a tilted gantry?); resample it to an orthogonal "
            "grid first"
        )


def check_size(size: tuple[int, ...], item_bytes: int, path: Path) -> int:
    """Bytes of the voxels in the file; raises :class:`GridError` where the volume is too large."""
    count = 1
    for n in size:
        count *= int(n)
    needed = count * max(item_bytes, LIMITS.least_item_bytes)
    if needed > LIMITS.most_bytes:
        raise GridError(
            f"{path}: {' x '.join(map(str, size))} voxels need {needed / 2**30:.1f} GiB of memory; at most "
            f"{LIMITS.most_bytes / 2**30:g} GiB are read: crop it to what is operated on, or resample it"
        )
    return count * item_bytes


def check_same_place(one: Grid, other: Grid, names: tuple[str, str], path: Path) -> None:
    """Raises :class:`GridError` where two descriptions of a file place its voxels differently."""
    off = float(np.linalg.norm(one.corners_ct() - other.corners_ct(), axis=1).max())
    if not off <= LIMITS.same_place_mm:
        raise GridError(
            f"{path}: {names[0]} and {names[1]} place the patient differently, by up to {off:.1f} mm at the corners; "
            "write the file again with one place"
        )


def _rounded(values: Float) -> str:
    return " x ".join(f"{v:.3g}" for v in values)
