"""What the header of a volume file says of its grid, judged before a voxel is read or any memory is taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# Of the voxels of one volume in memory: 512 x 512 x 2048 at 4 bytes.
MOST_VOXEL_BYTES = 2 * 2**30
# A voxel that is kept is held as 4 bytes at least, since values are interpolated as float32.
_LEAST_ITEM_BYTES = 4
# Finer than a clinical scanner resolves by a factor of ten, and coarser than anything that is navigated on.
_FINEST_MM, _COARSEST_MM = 0.01, 20.0
# Largest cosine between two axes.
_ASKEW = 1e-3
# Two descriptions of one place may differ by this at any corner, mm: a tenth of a fine voxel, above float32's rounding.
SAME_PLACE_MM = 0.1


class GridError(ValueError):
    """A grid that no volume of a patient can have; the text names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels lie in the patient.

    Attributes
    ----------
    size : tuple of 3 int
        Voxels along each index, in the order (x, y, z) of the file.
    step_ct : ndarray, shape (3, 3)
        Columns: what one step along each index does, LPS mm.
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
    """Raises :class:`GridError` where the grid is not one that a patient's volume can have."""
    spacing = grid.spacing_mm
    if min(grid.size) < 2:
        raise GridError(f"{path}: is {' x '.join(map(str, grid.size))} voxels; a volume needs at least 2 on each axis")
    if not np.isfinite(grid.step_ct).all() or not np.isfinite(grid.origin_ct).all():
        raise GridError(f"{path}: its place in the patient is not given in finite numbers")
    if spacing.min() < _FINEST_MM or spacing.max() > _COARSEST_MM:
        raise GridError(
            f"{path}: voxel spacing {_rounded(spacing)} mm is not usable: it must lie between {_FINEST_MM:g} and "
            f"{_COARSEST_MM:g} mm (is the file in another unit?)"
        )
    axes = grid.direction
    if np.abs(axes.T @ axes - np.eye(3)).max() > _ASKEW:
        raise GridError(
            f"{path}: its axes are not perpendicular to each other (a tilted gantry?); resample it to an orthogonal "
            "grid first"
        )


def check_size(size: tuple[int, ...], item_bytes: int, path: Path) -> int:
    """The bytes that the file's voxels take up in it; raises :class:`GridError` where a volume would be too large."""
    count = 1
    for n in size:
        count *= int(n)
    needed = count * max(item_bytes, _LEAST_ITEM_BYTES)
    if needed > MOST_VOXEL_BYTES:
        raise GridError(
            f"{path}: {' x '.join(map(str, size))} voxels need {needed / 2**30:.1f} GiB of memory; at most "
            f"{MOST_VOXEL_BYTES / 2**30:g} GiB are read: crop it to what is operated on, or resample it"
        )
    return count * item_bytes


def check_same_place(one: Grid, other: Grid, names: tuple[str, str], path: Path) -> None:
    """Raises :class:`GridError` where two descriptions put the same voxels at different places."""
    off = float(np.linalg.norm(one.corners_ct() - other.corners_ct(), axis=1).max())
    if not off <= SAME_PLACE_MM:
        raise GridError(
            f"{path}: {names[0]} and {names[1]} place the patient differently, by up to {off:.1f} mm at the corners; "
            "write the file again with one place"
        )


def _rounded(values: Float) -> str:
    return " x ".join(f"{v:.3g}" for v in values)
