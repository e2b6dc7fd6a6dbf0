"""The patient in layers: the bone that is operated on, its neighbours along the spine, and all the rest.

Between CT and operation a spine bends, and ribs, heart and diaphragm move with every breath. A rigid model of all
tissue follows what is most of the picture. In layers, each part is where it is: the target bone has the pose that
guidance needs, the other vertebrae follow it by a bend of few parameters, the rest of the patient by a motion of its
own. Where all motions are none, the layers add up to the rigid model.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.geometry import Camera, moved_about, skew
from fluoronav.imaging.projector import AttenuationGrid, Projector, attenuation_of_hu, padded_rays
from fluoronav.imaging.registration.model import SETTINGS as MODEL

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayerSettings:
    """Which bones are layers, and how they are cut out; all chosen.

    Attributes
    ----------
    most_away_mm : float
        A bone that is farther from the target's point is not the target bone.
    reach_mm : float
        Vertebrae whose middle is farther from the target bone's are part of the rest: a bend of few parameters says
        little of them.
    cortex_mm : float
        A label map leaves out so much of the cortex, which would stay behind with the rest.
    """

    most_away_mm: float = 30.0
    reach_mm: float = 70.0
    cortex_mm: float = 1.5


SETTINGS = LayerSettings()
_SPINE = "vertebra"  # beginning of the names of bones that bend together


@dataclass(frozen=True)
class BoneLayer:
    """A bone above soft tissue.

    Attributes
    ----------
    name : str
    projector : Projector
    centre_ct : ndarray, shape (3,)
        LPS mm.
    along_mm : float
        From the target bone along the spine, towards the head; 0 for the target bone.
    """

    name: str
    projector: Projector
    centre_ct: Float
    along_mm: float


@dataclass(frozen=True)
class Layers:
    """The layers of one case.

    Attributes
    ----------
    bones : tuple of BoneLayer
        The target bone first.
    tissue : Projector
        All tissue, these bones among it.
    """

    bones: tuple[BoneLayer, ...]
    tissue: Projector
    scratch: _Scratch = field(default_factory=lambda: _Scratch(), repr=False)

    @property
    def target(self) -> BoneLayer:
        return self.bones[0]

    # A grid of the rest would take as much memory as that of all tissue: it is what remains of its picture.

    def rest(self, T_camera_rest: Float, directions: Float32, out: Float32) -> None:
        """Writes the line integrals of all tissue but these bones, as :meth:`.Projector.line_integrals` does."""
        part = self.scratch.of(directions.shape[1])[0]
        self.tissue.line_integrals(T_camera_rest, directions, out)
        for bone in self.bones:
            bone.projector.line_integrals(T_camera_rest, directions, part)
            out -= part

    def rest_and_derivatives(self, T_camera_rest: Float, directions: Float32, centre_ct: Float, out: Float32) -> None:
        """Writes these with their derivatives, as :meth:`.Projector.line_integrals_and_derivatives` does."""
        n = directions.shape[1]
        part = self.scratch.of(n)
        self.tissue.line_integrals_and_derivatives(T_camera_rest, directions, centre_ct, out)
        for bone in self.bones:
            bone.projector.line_integrals_and_derivatives(T_camera_rest, directions, centre_ct, part)
            out[:, :n] -= part

    @classmethod
    def of_case(cls, case, tissue: Projector) -> Layers | None:
        """The layers of a :class:`fluoronav.case.Case`; None where no bone of its label map lies at its target.

        The target bone is the segmented one that is nearest to the point at which the registration's error is stated:
        the plan's first target, or the isocentre.

        Parameters
        ----------
        case : fluoronav.case.Case
        tissue : Projector
            Of all tissue (:func:`.model.tissue_grid`).
        """
        named = {s for o in case.file.objects for s in o.structures}
        bones = [s for s in case.structures if s.label in case.rigid_labels or s.name in named]
        if not bones:
            return None
        at = np.array(case.target_ct, np.float64)[None]
        away_mm = np.array([_distance_mm(s, at) for s in bones])
        if away_mm.min() > SETTINGS.most_away_mm:
            return None
        target = bones[int(away_mm.argmin())]
        return _cut_out(case.labels, target, bones, tissue)


def _distance_mm(structure, at: Float) -> float:
    out = np.empty((1, 4))
    structure.distances(at, out)
    return float(out[0, 0])


def _cut_out(labels, target, bones, projector: Projector) -> Layers | None:
    """Layers of the target bone, and of the vertebrae near it where it is one."""
    tissue = projector.grid
    size = tuple(int(n) for n in tissue.voxels.shape[::-1])
    there = labels.resampled(tissue.origin_ct, size, tissue.spacing_mm, 0, nearest=True)
    centres = {b.name: np.mean(labels.extent_ct((b.label,)), axis=0) for b in bones}
    bends = [b for b in bones if b.name.lower().startswith(_SPINE)] if target.name.lower().startswith(_SPINE) else []
    near = [target, *(b for b in bends if b is not target)]
    off = {b.name: centres[b.name] - centres[target.name] for b in near}
    near = [b for b in near if np.linalg.norm(off[b.name]) < SETTINGS.reach_mm]
    soft = float(attenuation_of_hu(np.float32(MODEL.soft_tissue_hu)))
    layers = []
    radius = max(1, round(SETTINGS.cortex_mm / tissue.spacing_mm))
    taken = np.isin(there, [b.label for b in near])
    for bone in near:
        own = there == bone.label
        if not own.any():
            return None
        grown = sitk.GetArrayFromImage(sitk.BinaryDilate(sitk.GetImageFromArray(own.astype(np.uint8)), [radius] * 3))
        mask = (grown > 0) & (own | ~taken)
        at = np.argwhere(mask)
        box = tuple(slice(a, b) for a, b in zip(at.min(0), at.max(0) + 1, strict=True))
        # Where two bones touch, each voxel is of one of them.
        taken |= mask
        above = np.where(mask[box], np.maximum(tissue.voxels[box] - soft, 0), 0).astype(np.float32)
        if not above.max() > 0:
            return None
        first_ct = tissue.origin_ct + tissue.spacing_mm * at.min(0)[::-1]
        along = float(np.linalg.norm(off[bone.name]) * np.sign(off[bone.name][2]))
        grid = AttenuationGrid(above, first_ct, tissue.spacing_mm)
        layers.append(BoneLayer(bone.name, Projector(grid), centres[bone.name], along))
    return Layers(tuple(layers), projector)


def bend_to_twist(bone: BoneLayer, target_ct: Float) -> Float:
    """How a bend of the spine moves one of its bones.

    With constant curvature from the target bone on, a bone is turned by the bend times its distance, and shifted by
    half of that turn times the way to it.

    Parameters
    ----------
    bone : BoneLayer
    target_ct : ndarray, shape (3,)
        Middle of the target bone.

    Returns
    -------
    ndarray, shape (6, 3)
        Twist (rad, mm) of the bone about its own middle, by the bend about the patient's axes, rad/mm.
    """
    s = bone.along_mm
    return np.vstack([s * np.eye(3), -s / 2 * skew(bone.centre_ct - target_ct)])


class _Scratch(threading.local):
    """Line integrals of one layer; each thread has its own."""

    def __init__(self) -> None:
        self._part = np.zeros(0, np.float32)

    def of(self, rays: int) -> Float32:
        """Shape (7, rays), contiguous as the kernels are compiled for it; kept from call to call."""
        if len(self._part) < 7 * rays:
            self._part = np.zeros(7 * rays, np.float32)
        return self._part[: 7 * rays].reshape(7, rays)


class LayeredModel:
    """Line integrals of the layers, each at its place.

    A :class:`.gauss_newton.CastsRays`: the pose is the target bone's, and everything moves with it.

    Parameters
    ----------
    layers : Layers
    bend_rad_mm : ndarray, shape (3,), optional
        Rotation of the spine along its length, about the patient's axes; none by default.
    T_ct_rest : ndarray, shape (4, 4), optional
        Where the rest lies against the target bone, mm; the identity in the CT.
    """

    def __init__(self, layers: Layers, bend_rad_mm: Float | None = None, T_ct_rest: Float | None = None) -> None:
        self.layers, self.grid = layers, layers.tissue.grid
        self.bend_rad_mm = np.zeros(3) if bend_rad_mm is None else bend_rad_mm
        self.T_ct_rest = np.eye(4) if T_ct_rest is None else T_ct_rest
        self.bones = _Bones(self)

    def T_ct_bone(self, bone: BoneLayer) -> Float:
        """Where a bone lies against the target bone, mm."""
        return moved_about(bone.centre_ct, bend_to_twist(bone, self.layers.target.centre_ct) @ self.bend_rad_mm)

    def line_integrals_and_derivatives(
        self, T_camera_ct: Float, directions: Float32, centre_ct: Float, out: Float32
    ) -> None:
        """As of a Projector."""
        n = directions.shape[1]
        part = self.layers.scratch.of(n)
        self.layers.rest_and_derivatives(T_camera_ct @ self.T_ct_rest, directions, centre_ct, out)
        for bone in self.layers.bones:
            T = T_camera_ct @ self.T_ct_bone(bone)
            bone.projector.line_integrals_and_derivatives(T, directions, centre_ct, part)
            out[:, :n] += part

    def line_integrals(self, T_camera_ct: Float, directions: Float32, out: Float32) -> None:
        """As of a Projector."""
        self.layers.rest(T_camera_ct @ self.T_ct_rest, directions, out)
        self.add_bones(T_camera_ct, directions, out)

    def add_bones(self, T_camera_ct: Float, directions: Float32, out: Float32) -> None:
        """Adds the bones' line integrals."""
        part = self.layers.scratch.of(directions.shape[1])[0]
        for bone in self.layers.bones:
            bone.projector.line_integrals(T_camera_ct @ self.T_ct_bone(bone), directions, part)
            out += part


class _Bones:
    """The bones of a layered model: where patches go."""

    def __init__(self, model: LayeredModel) -> None:
        self._model = model

    def render(self, T_camera_ct: Float, camera: Camera) -> Float32:
        """As of a Projector."""
        directions, count = padded_rays(camera.rays(camera.pixel_grid()))
        out = np.zeros(directions.shape[1], np.float32)
        self._model.add_bones(T_camera_ct, directions, out)
        return out[:count].reshape(camera.rows, camera.cols)
