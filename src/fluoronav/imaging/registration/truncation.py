"""A CT that is not the whole patient: a small reconstructed field, whose sides cut through the body.

The beam crosses tissue that such a CT lacks. Its faces would project as edges that the patient does not have, so the
model goes on beyond them with what lies at them, smoothed, and fades out slowly. Only pixels whose ray crosses the CT
itself count (:mod:`.agreement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class TruncationSettings:
    """When a CT is taken for a part of the patient, and how it is continued; chosen where not said."""

    tissue_hu: float = -300.0  # denser voxels are no air
    # Fraction of the four lateral faces that is tissue: 0.26 to 1.0 of fields of 140 mm in trunk and head, 0.04 at most
    # of whole patients.
    cut_fraction: float = 0.15
    width_mm: float = 60.0  # of the continuation, over which it fades out
    smooth_mm: float = 8.0  # standard deviation: no detail that the patient does not have


SETTINGS = TruncationSettings()


def is_cut(hu: Float32, of_ct: Sequence[bool] = (True,) * 4) -> bool:
    """Whether the lateral faces of a CT cut through the body.

    Parameters
    ----------
    hu : ndarray of float32, shape (z, y, x)
        Along the patient axes.
    of_ct : sequence of bool
        Which of its faces (lowest y, highest y, lowest x, highest x) are the CT's own: beyond others the CT goes on.
    """
    every = (hu[:, 0], hu[:, -1], hu[:, :, 0], hu[:, :, -1])
    faces = [face for face, own in zip(every, of_ct, strict=True) if own]
    tissue = sum(int((face > SETTINGS.tissue_hu).sum()) for face in faces)
    return tissue > SETTINGS.cut_fraction * sum(face.size for face in faces)


def continued(attenuation: Float32, spacing_mm: float) -> tuple[Float32, int]:
    """The attenuation, continued on all sides.

    Parameters
    ----------
    attenuation : ndarray of float32, shape (z, y, x)
    spacing_mm : float

    Returns
    -------
    ndarray of float32, shape (z + 2 n, y + 2 n, x + 2 n)
    n : int
        Voxels that were added on each side.
    """
    n = round(SETTINGS.width_mm / spacing_mm)
    wide = np.pad(attenuation, n, mode="edge")
    smooth = ndimage.gaussian_filter(wide, SETTINGS.smooth_mm / spacing_mm, mode="nearest", truncate=3.0)
    outside = [np.maximum(np.maximum(n - np.arange(size), np.arange(size) - (size - 1 - n)), 0) for size in wide.shape]
    far = np.maximum(np.maximum(outside[0][:, None, None], outside[1][:, None]), outside[2]).astype(np.float32)
    far *= np.float32(spacing_mm)
    blend = np.clip(far / np.float32(SETTINGS.smooth_mm), 0, 1)
    wide += blend * (smooth - wide)
    wide *= np.float32(0.5) + np.float32(0.5) * np.cos(np.float32(np.pi) * np.clip(far / SETTINGS.width_mm, 0, 1))
    return wide, n


def chords_mm(directions: Float32, T_ct_camera: NDArray[np.float64], box_ct: NDArray[np.float64]) -> Float32:
    """Length of each ray inside a box along the patient axes.

    Parameters
    ----------
    directions : ndarray of float32, shape (2, n)
        Camera-frame directions with z = 1 (:func:`fluoronav.imaging.projector.padded_rays`).
    T_ct_camera : ndarray, shape (4, 4)
        Camera to patient, mm.
    box_ct : ndarray, shape (2, 3)
        Lowest and highest corner, LPS mm.

    Returns
    -------
    ndarray of float32, shape (n,)
        mm; 0 for a ray that misses the box.
    """
    rays = T_ct_camera[:3, :2] @ directions + T_ct_camera[:3, 2:3]
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (box_ct[:, :, None] - T_ct_camera[:3, 3][:, None]) / rays
    near, far = np.fmin(at[0], at[1]).max(0), np.fmax(at[0], at[1]).min(0)
    inside = np.maximum(far - np.maximum(near, 0), 0)
    return np.asarray(inside * np.linalg.norm(rays, axis=0), np.float32)
