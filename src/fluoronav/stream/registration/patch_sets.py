"""The patches of the pose at hand, and a second set that is placed beside the frame path."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.graph_backend import TRACKING_PATCHES
from fluoronav.imaging.registration.keyframes import KeyframeModel
from fluoronav.imaging.registration.layered_fit import LayeredPose
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE
from fluoronav.imaging.registration.target_bone import Layers

Float = NDArray[np.float64]


@dataclass
class Patches:
    """Patches at two resolutions, placed for one pose.

    Attributes
    ----------
    coarse, fine : PatchLevel
    T_camera_ct : ndarray, shape (4, 4)
        That they were placed for, mm.
    layered : LayeredPose or None
        Where the layers of the patient lie in their keyframes; None where all tissue moves as one.
    bone : str
        Name of the target bone, which the pose is of then; else empty.
    """

    coarse: PatchLevel
    fine: PatchLevel
    T_camera_ct: Float
    layered: LayeredPose | None = None
    bone: str = ""


class PatchSets:
    """Two sets of patches with their keyframes: the frame path uses one while the other is placed.

    Parameters
    ----------
    camera : Camera
    bones, tissue : Projector
        Patches are placed where the bones have structure; keyframes are rendered of all tissue.
    centre_ct : ndarray, shape (3,)
    layers : Layers, optional
        Without them all tissue moves as one.

    Attributes
    ----------
    sets : list of Patches
        The one in use, and the other.
    keyframes : KeyframeModel
        Of both sets.
    with_keyframes : bool
        Off where the step is a graph that renders by itself.
    in_work : threading.Lock
        Held by the background while it renders or places; the frame path never takes it.
    """

    def __init__(
        self, camera: Camera, bones: Projector, tissue: Projector, centre_ct: Float, layers: Layers | None = None
    ) -> None:
        (coarse_count, coarse_size), (fine_count, fine_size) = TRACKING_PATCHES
        coarse, fine = (coarse_size, coarse_count), (fine_size, fine_count)
        self._bones, self._tissue, self._layers = bones, tissue, layers
        self.sets = [
            Patches(PatchLevel(camera, COARSE_SIDE, *coarse), PatchLevel(camera, FINE_SIDE, *fine), np.eye(4))
            for _ in range(2)
        ]
        levels = [level for patches in self.sets for level in (patches.coarse, patches.fine)]
        self.keyframes, self.with_keyframes = KeyframeModel(tissue, centre_ct, levels), True
        self.in_work = threading.Lock()

    @property
    def in_use(self) -> Patches:
        return self.sets[0]

    @property
    def other(self) -> Patches:
        return self.sets[1]

    def place(
        self,
        patches: Patches,
        T_camera_ct: Float,
        field_mask: NDArray[np.bool_],
        layered: LayeredPose | None = None,
    ) -> None:
        """Places a set that no frame uses for a pose, inside the field of view, and renders its keyframes there.

        Parameters
        ----------
        patches : Patches
        T_camera_ct : ndarray, shape (4, 4)
        field_mask : ndarray of bool
        layered : LayeredPose, optional
            The keyframes are of the patient in layers, which lie so; the pose is then the target bone's.
        """
        levels = (patches.coarse, patches.fine)
        model = None if layered is None or self._layers is None else layered.model(self._layers)
        with self.in_work:
            self.keyframes.forget(levels, self._tissue if model is None else model)
            for level in levels:
                level.choose(self._bones if model is None else model.bones, T_camera_ct, field_mask)
            patches.T_camera_ct, patches.layered = T_camera_ct, layered
            patches.bone = "" if model is None else model.layers.target.name
            if self.with_keyframes:
                self.keyframes.render_first(levels, T_camera_ct)

    def place_other(
        self, T_camera_ct: Float, field_mask: NDArray[np.bool_], layered: LayeredPose | None = None
    ) -> None:
        """Places the set that no frame uses."""
        self.place(self.other, T_camera_ct, field_mask, layered)

    def render_next(self, patches: Patches, T_camera_ct: Float) -> None:
        """Renders the fine level's next keyframe."""
        with self.in_work:
            self.keyframes.render_next(patches.fine, T_camera_ct)

    def swap(self) -> None:
        """Uses the set that has been placed."""
        self.sets.reverse()
