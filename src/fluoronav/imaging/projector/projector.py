"""Projector: line integrals through one volume, and their derivatives, at any pose."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoronav.geometry import Camera, inverse
from fluoronav.imaging.projector.attenuation import AXES, AttenuationGrid
from fluoronav.imaging.projector.joseph import BLOCK, march, march_with_derivatives
from fluoronav.kernels import load_numba

Float32 = NDArray[np.float32]


def padded_rays(rays_camera: ArrayLike) -> tuple[Float32, int]:
    """Ray directions in the layout of the kernels.

    Parameters
    ----------
    rays_camera : array_like, shape (..., 3)
        Camera-frame directions with z = 1 (:meth:`Camera.rays`).

    Returns
    -------
    directions : ndarray of float32, shape (2, n)
        n is the next multiple of BLOCK; the last ray is repeated.
    count : int
        Number of rays without the repeated ones.

    Raises
    ------
    ValueError
        There are no rays.
    """
    rays = np.asarray(rays_camera, dtype=np.float32).reshape(-1, 3)
    count = len(rays)
    if count == 0:
        raise ValueError("no rays to cast")
    n = -(-count // BLOCK) * BLOCK
    directions = np.empty((2, n), np.float32)
    directions[:, :count] = rays[:, :2].T
    directions[:, count:] = directions[:, count - 1 : count]
    return directions, count


def dominant_axis(T_camera_ct: ArrayLike) -> int:
    """The patient axis that the central ray is most parallel to: 0, 1 or 2 for x, y or z."""
    return int(np.argmax(np.abs(np.asarray(T_camera_ct)[2, :3])))


class Projector:
    """Casts rays through one attenuation grid.

    Parameters
    ----------
    grid : AttenuationGrid
    threads : int
        Worker threads for one call; kernels release the GIL. With 1, the calling thread does the work.

    Notes
    -----
    The grid is kept three times, once for each dominant axis (4 bytes a voxel each). All rays of a call share the axis
    that the central ray is most parallel to; a ray that leans away from it by more than 45 degrees is sampled more
    coarsely, by at most a factor of 1.7 for the cone of a C-arm.
    """

    def __init__(self, grid: AttenuationGrid, threads: int = 1) -> None:
        self.grid = grid
        self._packed = {dominant: grid.packed(dominant) for dominant in AXES}
        self._threads = threads
        if threads > 1:
            load_numba()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="projector") if threads > 1 else None

    def render(self, T_camera_ct: ArrayLike, camera: Camera) -> Float32:
        """The DRR of a whole image: line integrals, dimensionless, shape (rows, cols)."""
        directions, count = padded_rays(camera.rays(camera.pixel_grid()))
        integrals = np.empty(directions.shape[1], np.float32)
        self.line_integrals(T_camera_ct, directions, integrals)
        return integrals[:count].reshape(camera.rows, camera.cols)

    def line_integrals(self, T_camera_ct: ArrayLike, directions: Float32, integrals: Float32) -> None:
        """Writes the line integral of each ray.

        Parameters
        ----------
        T_camera_ct : array_like, shape (4, 4)
        directions : ndarray of float32, shape (2, n)
            From :func:`padded_rays`.
        integrals : ndarray of float32, shape (n,)
            Written.
        """
        dominant, M, source, k_range = self._voxel_frame(T_camera_ct)
        scale, spacing = np.float32(self.grid.scale), np.float32(self.grid.spacing_mm)
        packed = self._packed[dominant]

        def part(first: int, end: int) -> None:
            march(packed, scale, spacing, M, source, directions, k_range, integrals, first, end)

        self._over_blocks(part, directions.shape[1] // BLOCK)

    def line_integrals_and_derivatives(
        self, T_camera_ct: ArrayLike, directions: Float32, centre_ct: ArrayLike, out: Float32
    ) -> None:
        """Writes each ray's line integral and its six derivatives by the camera's motion.

        Parameters
        ----------
        T_camera_ct : array_like, shape (4, 4)
        directions : ndarray of float32, shape (2, n)
            From :func:`padded_rays`.
        centre_ct : array_like, shape (3,)
            Point about which the twist rotates, LPS mm.
        out : ndarray of float32, shape (7, n)
            Written: I, dI/dw_x, dI/dw_y, dI/dw_z (1/rad), dI/dv_x, dI/dv_y, dI/dv_z (1/mm). The twist moves the
            *camera* in the CT frame: ``T_ct_camera <- moved_about(centre_ct, (w, v)) @ T_ct_camera``.
        """
        dominant, M, source, k_range = self._voxel_frame(T_camera_ct)
        u, v, k = AXES[dominant]
        axes = np.array([u, v, k], np.int32)
        parity = np.float32(-1 if dominant == 1 else 1)
        centre = ((np.asarray(centre_ct) - self.grid.padded_origin_ct) / self.grid.spacing_mm)[axes].astype(np.float32)
        scale, spacing = np.float32(self.grid.scale), np.float32(self.grid.spacing_mm)
        packed = self._packed[dominant]

        def part(first: int, end: int) -> None:
            march_with_derivatives(
                packed, scale, spacing, M, source, directions, k_range, axes, parity, centre, out, first, end
            )

        self._over_blocks(part, directions.shape[1] // BLOCK)

    def _voxel_frame(
        self, T_camera_ct: ArrayLike
    ) -> tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
        """Dominant axis; camera directions and source in padded voxel axes (u, v, k); slices beyond the source."""
        T_ct_camera = inverse(T_camera_ct)
        R, source_ct = T_ct_camera[:3, :3], T_ct_camera[:3, 3]
        dominant = dominant_axis(T_camera_ct)
        order = list(AXES[dominant])
        source = ((source_ct - self.grid.padded_origin_ct) / self.grid.spacing_mm)[order].astype(np.float32)
        slices = self._packed[dominant].shape[2]
        at = int(np.clip(np.ceil(source[2]), 0, slices))
        k_range = np.array([at, slices] if R[dominant, 2] > 0 else [0, at], np.int32)
        return dominant, np.ascontiguousarray(R[order], dtype=np.float32), source, k_range

    def _over_blocks(self, part, blocks: int) -> None:
        if self._pool is None or blocks < 4 * self._threads:
            part(0, blocks)
            return
        # Several chunks a thread: a core that is preempted delays one chunk, not half the image.
        edges = np.linspace(0, blocks, 4 * self._threads + 1).astype(int)
        for done in [self._pool.submit(part, int(a), int(b)) for a, b in pairwise(edges)]:
            done.result()
