"""Patches of the image that the registration compares: where the projected bones have structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.imaging.projector import BLOCK, padded_rays


@dataclass(frozen=True)
class PatchLimits:
    """Which patches are placed; chosen."""

    min_energy: float = 1e-3  # squared gradient summed over the patch, fraction of the largest
    binary_slack_px: float = 0.5  # of the count of allowed pixels, which is summed in single precision


LIMITS = PatchLimits()


def choose_patches(
    bone: NDArray[np.float32], allowed: NDArray[np.bool_], size: int, count: int, apart: float = 1.0
) -> NDArray[np.int32]:
    """Places patches where the gradients of the bones' line integrals are largest.

    Parameters
    ----------
    bone : ndarray of float32, shape (rows, cols)
        DRR of the bones alone.
    allowed : ndarray of bool, the same shape
        Patches lie inside it.
    size : int
        Side of a patch, pixels.
    count : int
        Maximum number of patches.
    apart : float
        Minimum distance of patches as a fraction of the size; with 1 they do not overlap.

    Returns
    -------
    ndarray of int32, shape (n, 2)
        Upper left (row, column) of each patch, n <= count, largest gradients first.
    """
    rows, cols = bone.shape
    if rows <= size or cols <= size:
        return np.empty((0, 2), np.int32)
    slope = cv2.Sobel(bone, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(bone, cv2.CV_32F, 0, 1) ** 2
    # Anchored at the upper left pixel: energy[i, j] is that of the patch with its upper left corner there.
    window = {"ksize": (size, size), "anchor": (0, 0), "borderType": cv2.BORDER_CONSTANT}
    energy = cv2.boxFilter(slope, cv2.CV_32F, normalize=False, **window)
    clear = cv2.boxFilter(allowed.astype(np.float32), cv2.CV_32F, normalize=False, **window)
    energy[clear < size * size - LIMITS.binary_slack_px] = 0
    energy[rows - size + 1 :] = 0
    energy[:, cols - size + 1 :] = 0
    floor = LIMITS.min_energy * float(energy.max())
    reach = max(int(apart * size), 1)
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count:
        at = int(energy.argmax())
        i, j = divmod(at, cols)
        if energy[i, j] <= floor:
            break
        chosen.append((i, j))
        energy[max(0, i - reach + 1) : i + reach, max(0, j - reach + 1) : j + reach] = 0
    return np.array(chosen, np.int32).reshape(-1, 2)


class Renders(Protocol):
    """What gives a whole DRR; see :class:`fluoronav.imaging.projector.Projector`."""

    def render(self, T_camera_ct: NDArray, camera: Camera, /) -> NDArray[np.float32]: ...


class PatchLevel:
    """Patches at one resolution, with the buffers of the iterations.

    Parameters
    ----------
    camera : Camera
        At full resolution.
    side : int
        Longer side of this level's image, pixels.
    size : int
        Side of a patch, pixels.
    count : int
        Maximum number of patches.
    apart : float
        See :func:`choose_patches`.
    """

    def __init__(self, camera: Camera, side: int, size: int, count: int, apart: float = 1.0) -> None:
        self._apart = apart
        self.side = side
        self.camera = camera.scaled(side / max(camera.rows, camera.cols))
        self.size = size
        self.capacity = count
        n = -(-count * size * size // BLOCK) * BLOCK
        self.frame_hat = np.zeros(n, np.float32)
        self.model = np.zeros((7, n), np.float32)
        self.contrast = np.zeros(count, np.float32)
        self.ncc = np.zeros(count)
        self.weights = np.zeros(count)
        self.scratch = np.zeros((7, size * size), np.float32)
        self.first_row = np.zeros(0, np.int32)
        self.first_col = np.zeros(0, np.int32)
        self.directions = np.zeros((2, BLOCK), np.float32)

    @property
    def count(self) -> int:
        """Patches in use."""
        return len(self.first_row)

    def choose(self, bones: Renders, T_camera_ct: NDArray, allowed: NDArray[np.bool_]) -> int:
        """Places the patches for a pose and returns their number.

        Parameters
        ----------
        bones : Renders
            The bones alone.
        T_camera_ct : ndarray, shape (4, 4)
            Patient to camera, mm.
        allowed : ndarray of bool
            Patches lie inside it; any size, resampled to this level.
        """
        shape = (self.camera.rows, self.camera.cols)
        here = cv2.resize(allowed.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        places = choose_patches(bones.render(T_camera_ct, self.camera), here, self.size, self.capacity, self._apart)
        self.first_row, self.first_col = places[:, 0].copy(), places[:, 1].copy()
        if len(places):
            offset = np.arange(self.size)
            u = self.first_col[:, None, None] + offset[None, None, :]
            v = self.first_row[:, None, None] + offset[None, :, None]
            pixels = np.stack(np.broadcast_arrays(u, v), axis=-1).reshape(-1, 2)
            self.directions, _ = padded_rays(self.camera.rays(pixels))
        return len(places)
