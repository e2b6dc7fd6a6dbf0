"""Which parts of the image the registration looks at: where the projected bones have structure of their own."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.imaging.projector import BLOCK, Projector, padded_rays


def choose_patches(
    bone: NDArray[np.float32], allowed: NDArray[np.bool_], size: int, count: int, apart: float = 1.0
) -> NDArray[np.int32]:
    """Places patches where the bones' line integrals change most, spread out.

    Parameters
    ----------
    bone : ndarray of float32, shape (rows, cols)
        DRR of the bones alone.
    allowed : ndarray of bool, the same shape
    size : int
        Pixels along a patch's side.
    count : int
        The most to place.
    apart : float
        Distance of neighbours as a share of the size; 1 lets none overlap.

    Returns
    -------
    ndarray of int32, shape (n, 2)
        Upper left (row, column), n <= count; strongest first.
    """
    rows, cols = bone.shape
    if rows <= size or cols <= size:
        return np.empty((0, 2), np.int32)
    slope = cv2.Sobel(bone, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(bone, cv2.CV_32F, 0, 1) ** 2
    # Anchored at the upper left pixel: energy[i, j] is that of the patch which begins there.
    window = {"ksize": (size, size), "anchor": (0, 0), "borderType": cv2.BORDER_CONSTANT}
    energy = cv2.boxFilter(slope, cv2.CV_32F, normalize=False, **window)
    clear = cv2.boxFilter(allowed.astype(np.float32), cv2.CV_32F, normalize=False, **window)
    energy[clear < size * size - 0.5] = 0
    energy[rows - size + 1 :] = 0
    energy[:, cols - size + 1 :] = 0
    floor = 1e-3 * float(energy.max())
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


class PatchLevel:
    """Patches at one resolution, with every buffer that an iteration needs.

    Parameters
    ----------
    camera : Camera
        At full resolution.
    side : int
        Pixels along the longer side of this level's image.
    size : int
        Pixels along a patch's side.
    count : int
        The most patches.
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

    def choose(self, bones: Projector, T_camera_ct: NDArray, allowed: NDArray[np.bool_]) -> int:
        """Places the patches for a pose; returns how many.

        Parameters
        ----------
        bones : Projector
            Of the bones alone.
        T_camera_ct : ndarray, shape (4, 4)
        allowed : ndarray of bool
            Of any size that shows the same field; see :class:`.field_of_view.FieldOfView`.
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
