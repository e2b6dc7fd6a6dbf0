"""Whether a pose fits a picture better than the picture's mirror image: a pose of the wrong hand is never believed.

A mirrored patient at the mirrored pose makes the mirror image of a picture. The model is therefore compared with the
reversed picture by a reversed camera, and no mirrored model is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, transform_points
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.agreement import Agreement
from fluoronav.imaging.registration.gauss_newton import refine
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE
from fluoronav.imaging.registration.search import SETTINGS as SEARCH
from fluoronav.imaging.registration.starts import reflection

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Hand = Literal["right", "unclear", "mirrored"]
_REVERSED = np.diag([-1.0, 1.0, 1.0, 1.0])  # camera axes of the reversed picture


@dataclass(frozen=True)
class HandednessLimits:
    """When a picture's hand is told."""

    # Minimum difference of the agreement of the picture and of its mirror image. Right poses of spine, lumbar spine and
    # ribs (7) differ by 0.41 to 0.78, of 140 mm cubes of a lumbar spine (6) by 0.18 to 0.29; a pose in another patient
    # that agreed with 0.82 by 0.04.
    margin: float = 0.1


LIMITS = HandednessLimits()


def told_hand(agreement: float, mirrored: float) -> Hand:
    """Which hand a picture is of, by its agreement with the model and that of its mirror image (:class:`MirrorImage`).

    "unclear" where the two agree alike: no program could tell.
    """
    if agreement - mirrored >= LIMITS.margin:
        return "right"
    return "mirrored" if mirrored - agreement >= LIMITS.margin else "unclear"


def reason_of_hand(hand: Hand, pictures: int, as_taken: float, mirrored: float) -> str:
    """Why a pose is not accepted by the hand of its pictures, in words; empty where the hand is right.

    Parameters
    ----------
    hand : "right", "unclear" or "mirrored"
    pictures : int
    as_taken, mirrored : float
        How well the model fits the pictures, and their mirror images.
    """
    if hand == "right":
        return ""
    figures = f"as taken the model fits with {as_taken:.2f}, left for right with {mirrored:.2f}"
    picture, is_, looks = ("the picture", "is", "looks") if pictures == 1 else ("the pictures", "are", "look")
    if hand == "unclear":
        return f"it cannot be told whether {picture} {is_} mirrored: {figures}: add a less symmetric view"
    return f"{picture} {looks} mirrored: {figures}: reverse the columns, or check the camera file"


def reversed_camera(camera: Camera) -> Camera:
    """The camera of a picture whose columns are reversed, left for right; where it stands is the same.

    Parameters
    ----------
    camera : Camera
    """
    K = camera.K.copy()
    K[0, 2] = camera.cols - 1 - K[0, 2]
    K[0, 1] = -K[0, 1]
    distortion = camera.distortion
    if distortion is not None:
        distortion = np.array(distortion, dtype=np.float64)
        # In OpenCV's model the horizontal shift p2 (r2 + 2 x2) and that of the thin prism, s1 r2 + s2 r4, change sign.
        for odd in (3, 8, 9):
            if odd < len(distortion):
                distortion[odd] = -distortion[odd]
    return replace(camera, K=K, distortion=distortion)


def reversed_columns(image: NDArray) -> NDArray:
    """A picture or a mask, left for right."""
    return np.ascontiguousarray(image[:, ::-1])


class MirrorImage:
    """The mirror image of a picture, beside a pose that fits the picture itself.

    Parameters
    ----------
    model, bones : Projector
        All tissue, and the rigid bones alone, on which patches are placed.
    camera : Camera
        At full resolution.
    centre_ct : ndarray, shape (3,)
        Centre of rotations, LPS mm; the planes of reflection go through it.
    T_prior : ndarray, shape (4, 4)
        As for :class:`fluoronav.imaging.registration.agreement.Agreement`.
    """

    def __init__(self, model: Projector, bones: Projector, camera: Camera, centre_ct: Float, T_prior: Float) -> None:
        self._model, self._bones, self._centre_ct = model, bones, np.asarray(centre_ct, np.float64)
        camera = reversed_camera(camera)
        self._coarse = PatchLevel(camera, COARSE_SIDE, *SEARCH.coarse_patches)
        self._fine = PatchLevel(camera, FINE_SIDE, *SEARCH.fine_patches)
        self._agreement = Agreement(model, bones, camera, COARSE_SIDE, T_prior)

    def agreement(self, T_camera_ct: Float, pyramid: Mapping[int, Float32], mask: NDArray[np.bool_]) -> float:
        """The highest agreement of the model with the mirror image of a picture, -1 to 1.

        Two poses make nearly the mirror image of what a pose shows: the patient reflected left for right, who is nearly
        symmetric, and the patient seen from the opposite side, which in parallel projection shows the same shadow.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
            A pose that fits the picture, mm.
        pyramid : mapping
            Attenuation of the picture (not reversed) by the longer side of the image: 256 and 128 pixels.
        mask : ndarray of bool
            The pixels that may be compared, any size.
        """
        images = {side: reversed_columns(pyramid[side]) for side in (COARSE_SIDE, FINE_SIDE)}
        mask = reversed_columns(mask)
        ray_ct = T_camera_ct[:3, :3].T @ transform_points(T_camera_ct, self._centre_ct)
        normals = np.array([1.0, 0, 0]), ray_ct
        starts = [_REVERSED @ T_camera_ct @ reflection(normal, self._centre_ct) for normal in normals]
        return max(self._after(T, images, mask) for T in starts)

    def _after(self, T_camera_ct: Float, images: Mapping[int, Float32], mask: NDArray[np.bool_]) -> float:
        """The agreement at a pose of the reversed camera after Gauss-Newton, as the search refines its candidates.

        The fine level comes in the second round alone: the first leads from the reflected pose to near the one that
        fits, which the coarse level does as well in half the time.
        """
        for fine in (False, True):
            self._coarse.choose(self._bones, T_camera_ct, mask)
            levels = [(self._coarse, images[COARSE_SIDE], SEARCH.coarse_iterations)]
            if fine:
                self._fine.choose(self._bones, T_camera_ct, mask)
                levels.append((self._fine, images[FINE_SIDE], SEARCH.fine_iterations))
            T_camera_ct = refine(self._model, levels, T_camera_ct, self._centre_ct).T_camera_ct
            if not np.isfinite(T_camera_ct).all():
                return -1.0
        return self._agreement(T_camera_ct, images[COARSE_SIDE], mask)
