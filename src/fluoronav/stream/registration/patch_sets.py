"""The patches of the pose at hand, and a second set that is placed beside the frame path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.graph_backend import TRACKING_PATCHES
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE

Float = NDArray[np.float64]


@dataclass
class Patches:
    """Patches at two resolutions, placed for one pose."""

    coarse: PatchLevel
    fine: PatchLevel
    T_camera_ct: Float


class PatchSets:
    """Two sets of patches: the frame path uses one while the other is placed.

    Parameters
    ----------
    camera : Camera
    bones : Projector
        Of the bones alone: patches are placed where they have structure.

    Attributes
    ----------
    sets : list of Patches
        The one in use, and the other.
    """

    def __init__(self, camera: Camera, bones: Projector) -> None:
        (coarse_count, coarse_size), (fine_count, fine_size) = TRACKING_PATCHES
        coarse, fine = (coarse_size, coarse_count), (fine_size, fine_count)
        self._bones = bones
        self.sets = [
            Patches(PatchLevel(camera, COARSE_SIDE, *coarse), PatchLevel(camera, FINE_SIDE, *fine), np.eye(4))
            for _ in range(2)
        ]

    @property
    def in_use(self) -> Patches:
        return self.sets[0]

    @property
    def other(self) -> Patches:
        return self.sets[1]

    def place(self, patches: Patches, T_camera_ct: Float, field_mask: NDArray[np.bool_]) -> None:
        """Places a set for a pose, inside the field of view."""
        patches.coarse.choose(self._bones, T_camera_ct, field_mask)
        patches.fine.choose(self._bones, T_camera_ct, field_mask)
        patches.T_camera_ct = T_camera_ct

    def swap(self) -> None:
        """Uses the set that has been placed."""
        self.sets.reverse()
