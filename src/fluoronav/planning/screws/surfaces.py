"""The surface of a mask by its voxels: boxes on both sides, and the exact distance to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Surfaces:
    """Voxels on both sides of a structure's surface, split into nearly cubic boxes.

    Attributes
    ----------
    mask : ndarray of bool, shape (z, y, x)
        With a rim of empty voxels.
    origin_ct : ndarray, shape (3,)
        Centre of its first voxel, LPS mm.
    step_ct : ndarray, shape (3, 3)
        Columns: one step along x, y, z, LPS mm.
    inner, outer : KDTree
        Centres of boxes just inside and just outside, in mm along the mask's own axes.
    half_mm : ndarray, shape (3,)
        Half the sides of a box.
    """

    mask: NDArray[np.bool_] = field(repr=False)
    origin_ct: Float
    step_ct: Float
    inner: KDTree = field(repr=False)
    outer: KDTree = field(repr=False)
    half_mm: Float

    @classmethod
    def of(cls, mask: NDArray[np.bool_], origin_ct: Float, step_ct: Float) -> Surfaces:
        """The surface of a mask; the parameters are those of the class."""
        spacing = np.linalg.norm(step_ct, axis=0)
        parts = np.maximum(np.rint(spacing / spacing.min()), 1).astype(int)
        near = ndimage.generate_binary_structure(3, 1)
        inner = mask & ~np.asarray(ndimage.binary_erosion(mask, near), bool)
        outer = np.asarray(ndimage.binary_dilation(mask, near), bool) & ~mask
        inside, outside = (
            KDTree(_boxes(m, spacing, parts), balanced_tree=False, compact_nodes=False) for m in (inner, outer)
        )
        return cls(mask, origin_ct, step_ct, inside, outside, spacing / parts / 2)

    def outside_mm(self, points_ct: Float) -> Float:
        """Signed distance of points (n, 3), LPS mm, to the mask's voxels taken as boxes; positive outside."""
        mm, inside = self._located(points_ct)
        out = np.empty(len(mm))
        for tree, those, sign in ((self.outer, inside, -1.0), (self.inner, ~inside, 1.0)):
            if those.any():
                # The nearest box is one of those with the nearest centres, since boxes are nearly cubic.
                _, nearest = tree.query(mm[those], k=min(4, tree.n))
                nearest = nearest.reshape(int(those.sum()), -1)
                gap = np.maximum(np.abs(tree.data[nearest] - mm[those][:, None]) - self.half_mm, 0)
                out[those] = sign * np.sqrt((gap**2).sum(-1)).min(1)
        return out

    def _located(self, points_ct: Float) -> tuple[Float, NDArray[np.bool_]]:
        """Points along the mask's own axes, mm, and whether they lie in its voxels."""
        index = (points_ct - self.origin_ct) @ np.linalg.inv(self.step_ct).T
        at = np.rint(index).astype(int)
        inside: NDArray[np.bool_] = np.all((at >= 0) & (at < np.array(self.mask.shape[::-1])), axis=1)
        there = at[inside]
        inside[inside] = self.mask[there[:, 2], there[:, 1], there[:, 0]]
        return index * np.linalg.norm(self.step_ct, axis=0), np.asarray(inside, bool)


def _boxes(mask: NDArray[np.bool_], spacing: Float, parts: NDArray[np.int64]) -> Float:
    z, y, x = np.nonzero(mask)
    centres = np.stack([x, y, z], axis=1) * spacing
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in parts]
    grid = np.stack(np.meshgrid(*offsets, indexing="ij"), axis=-1).reshape(-1, 3) * spacing
    return (centres[:, None] + grid[None]).reshape(-1, 3)
