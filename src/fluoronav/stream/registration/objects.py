"""Bones that get a pose each, beside the one that all of them share.

Between CT and operation a spine bends: each vertebra is where its neighbours let it be. So each bone starts where the
common pose puts it and is held there by as much as bones move against one another; its own patches say the rest. Only
the bone moves: all else stays in the picture where the common pose has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.case.file import RigidObject
from fluoronav.geometry import Camera, inverse
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.agreement import CastsPlainRays
from fluoronav.imaging.registration.confidence import MIN_PATCHES, TRACKING_SCORE, covariance_in_camera
from fluoronav.imaging.registration.gauss_newton import refine, twist_between
from fluoronav.imaging.registration.layered_fit import LayeredPose
from fluoronav.imaging.registration.model import SEGMENT_DEG, SEGMENT_MM
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import FINE_SIDE
from fluoronav.imaging.registration.target_bone import Layers
from fluoronav.stream.frame import FrameRecord, ObjectPose, RegistrationResult
from fluoronav.stream.registration.result import as_result

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoneSettings:
    """How a bone is measured, and how long its pose is shown.

    Attributes
    ----------
    patch_px, patches, spacing
        Side of a patch, number of patches, and their spacing as in :class:`.PatchLevel`. Chosen; no source is recorded.
    rounds, iterations : int
        Placements of the patches, and iterations at each. Chosen; no source is recorded.
    tolerance_mm : float
        Iterations end at a smaller step. Chosen; no source is recorded.
    floor_across_mm : float
        Model error across the ray, 1 sigma: 24 exposures in which a vertebra had moved (`bench registration`,
        subject "embedded", has others).
    drift_mm_s : float
        Motion of a bone against its neighbours, 95 %. A breath; no source is recorded.
    max_age_ms : float
        An older pose is not shown. Chosen; no source is recorded.
    """

    patch_px: int = 11
    patches: int = 50
    spacing: float = 0.8
    rounds: int = 4
    iterations: int = 4
    tolerance_mm: float = 0.05
    floor_across_mm: float = 0.8
    drift_mm_s: float = 1.0
    max_age_ms: float = 10_000.0


SETTINGS = BoneSettings()


@dataclass(frozen=True)
class MeasuredBone:
    """One bone in one frame.

    Attributes
    ----------
    name : str
    registration : RegistrationResult or None
        None where too little of the bone was to be seen.
    T_ct_bone : ndarray, shape (4, 4)
        How it has moved against the others, in the common pose's CT frame, mm.
    """

    name: str
    registration: RegistrationResult | None
    T_ct_bone: Float


class _InPlace:
    """A bone that moves in a picture of all that does not: for :func:`.gauss_newton.refine`."""

    def __init__(self, bones: Projector, rays: int) -> None:
        self._bones = bones
        self._rest = np.zeros(rays, np.float32)
        self._bone = np.zeros(rays, np.float32)

    def leave_out(
        self, model: CastsPlainRays, T_camera_ct: Float, T_camera_bone: Float, directions: NDArray[np.float32]
    ) -> None:
        """Takes the picture of all but the bone, which lies there in the model."""
        n = directions.shape[1]
        model.line_integrals(T_camera_ct, directions, self._rest[:n])
        self._bones.line_integrals(T_camera_bone, directions, self._bone[:n])
        self._rest[:n] -= self._bone[:n]

    def line_integrals_and_derivatives(
        self, T_camera_ct: Float, directions: NDArray[np.float32], centre_ct: Float, out: NDArray[np.float32]
    ) -> None:
        """As of a Projector."""
        self._bones.line_integrals_and_derivatives(T_camera_ct, directions, centre_ct, out)
        n = directions.shape[1]
        out[0, :n] += self._rest[:n]


class ObjectPoses:
    """Measures one bone at a time, in turn, beside the frame path, and says where all of them are.

    Parameters
    ----------
    model : Projector
        Of all tissue.
    objects : tuple of (str, Projector)
        Name and bones.
    camera : Camera
        At full resolution.
    layers : Layers, optional
        Of the patient; with them a bone of the spine starts where the bend of its neighbours puts it.
    entries : sequence of RigidObject
        The case file's entries of these objects.

    Attributes
    ----------
    job : Future or None
        The measurement under way, from :meth:`begin` to :meth:`collect`.
    """

    def __init__(
        self,
        model: Projector,
        objects: tuple[tuple[str, Projector], ...],
        camera: Camera,
        layers: Layers | None = None,
        entries: Sequence[RigidObject] = (),
    ) -> None:
        self._model, self._layers = model, layers
        in_layers = {} if layers is None else {bone.name: bone for bone in layers.bones}
        bones = dict(objects)
        own = {o.name: [in_layers[s] for s in o.structures if s in in_layers] for o in entries if o.name in bones}
        # Of several layers that which is nearest to the object's middle.
        self._layer_of = {
            name: min(near, key=lambda layer: float(np.linalg.norm(layer.centre_ct - bones[name].grid.centre_ct)))
            for name, near in own.items()
            if near
        }
        self._level = PatchLevel(camera, FINE_SIDE, SETTINGS.patch_px, SETTINGS.patches, SETTINGS.spacing)
        rays = self._level.model.shape[1]
        self._objects = [(name, bones, _InPlace(bones, rays)) for name, bones in objects]
        self._found: dict[str, MeasuredBone] = {}
        self._measured_at: dict[str, int] = {}
        self._next = 0
        self.job: Future[MeasuredBone] | None = None
        self._job_of = 0  # the frame in which a bone is being measured, ns

    def __len__(self) -> int:
        return len(self._objects)

    def clear(self) -> None:
        """Forgets every pose."""
        self._found = {}

    def begin(
        self,
        background: Executor,
        frame: FrameRecord,
        T_camera_ct: Float,
        layered: LayeredPose | None = None,
    ) -> None:
        """Has the bone whose turn it is measured in a frame; the other parameters are those of :meth:`measure`."""
        assert frame.anatomy_mask is not None
        self._job_of = frame.t_local
        where = frame.pyramid[FINE_SIDE].copy(), frame.anatomy_mask.copy(), T_camera_ct, layered
        self.job = background.submit(self.measure, *where)

    def collect(self, *, wanted: bool) -> None:
        """Takes a measurement that has ended, where there is still a pose that it is of."""
        if self.job is not None and self.job.done():
            done, self.job = self.job, None
            measured = done.result()
            if wanted:
                self.take(measured, self._job_of)

    def measure(
        self,
        image: NDArray[np.float32],
        field_mask: NDArray[np.bool_],
        T_camera_ct: Float,
        layered: LayeredPose | None = None,
    ) -> MeasuredBone:
        """Measures the bone whose turn it is; on the background thread.

        Parameters
        ----------
        image : ndarray of float32
            Attenuation at 256 pixels.
        field_mask : ndarray of bool
        T_camera_ct : ndarray, shape (4, 4)
            The common pose in this image.
        layered : LayeredPose, optional
            How the layers of the patient lie; the common pose is the target bone's then.
        """
        name, bones, in_place = self._objects[self._next]
        self._next = (self._next + 1) % len(self._objects)
        model, T_ct_bone = self._model, np.eye(4)
        if layered is not None and self._layers is not None:
            model = layered.model(self._layers)
            # What is no layer is drawn with the rest.
            T_ct_bone = model.T_ct_bone(self._layer_of[name]) if name in self._layer_of else layered.T_ct_rest
        return self._measured(name, bones, in_place, image, field_mask, T_camera_ct, model, T_ct_bone)

    def take(self, measured: MeasuredBone, t_local: int = 0) -> None:
        """Takes a measurement; one that failed leaves the bone without a pose.

        Parameters
        ----------
        measured : MeasuredBone
        t_local : int
            Exposure of the frame that was measured, ns.
        """
        self._measured_at[measured.name] = t_local
        if measured.registration is None:
            self._found.pop(measured.name, None)
        else:
            self._found[measured.name] = measured

    def poses(self, T_camera_ct: Float, t_local: int = 0) -> tuple[ObjectPose, ...]:
        """Where the bones are now that the common pose is this, each as it was last measured against the others.

        A call is a frame: every pose is one frame older with it, and its bound larger. One that has not been measured
        for long is left out.

        Parameters
        ----------
        T_camera_ct : ndarray, shape (4, 4)
        t_local : int
            Exposure of the frame, ns.
        """
        out = []
        for name, m in list(self._found.items()):
            assert m.registration is not None
            age_ms = max(t_local - self._measured_at[name], 0) / 1e6
            if age_ms > SETTINGS.max_age_ms:
                del self._found[name]
                continue
            aged = replace(m.registration, age=m.registration.age + 1)
            self._found[name] = replace(m, registration=aged)
            grown = SETTINGS.drift_mm_s * age_ms / 1e3
            shown = replace(
                aged, T_camera_ct=T_camera_ct @ m.T_ct_bone, age_ms=age_ms,
                tre_mm=float(np.hypot(aged.tre_mm, grown)), tre_image_mm=float(np.hypot(aged.tre_image_mm, grown)),
            )  # fmt: skip
            out.append(ObjectPose(name, shown))
        return tuple(out)

    def _measured(
        self,
        name: str,
        bones: Projector,
        in_place: _InPlace,
        image: NDArray[np.float32],
        field_mask: NDArray[np.bool_],
        T_common: Float,
        model: CastsPlainRays,
        T_ct_bone: Float,
    ) -> MeasuredBone:
        T_start = T_common @ T_ct_bone
        T, centre = T_start, bones.grid.centre_ct
        held = np.diag([1 / np.deg2rad(SEGMENT_DEG) ** 2] * 3 + [1 / SEGMENT_MM**2] * 3)
        estimate = None
        for _ in range(SETTINGS.rounds):
            self._level.choose(bones, T, field_mask)
            in_place.leave_out(model, T_common, T_start, self._level.directions)
            estimate = refine(
                in_place,
                [(self._level, image, SETTINGS.iterations)],
                T,
                centre,
                held,
                tolerance_mm=SETTINGS.tolerance_mm,
                from_prior=twist_between(T_start, T, centre),
            )
            T = estimate.T_camera_ct
        assert estimate is not None
        if not np.isfinite(T).all() or estimate.patches < MIN_PATCHES or estimate.score < TRACKING_SCORE:
            return MeasuredBone(name, None, np.eye(4))
        covariance = covariance_in_camera(estimate.information + held, T)
        covariance[[3, 4], [3, 4]] += SETTINGS.floor_across_mm**2
        return MeasuredBone(name, as_result(T, estimate.score, covariance, centre), inverse(T_common) @ T)
