"""The pose of the target bone, with the bend of the spine and the motion of the rest, from one frame.

Damped Gauss-Newton over the same normalised patches as :mod:`.gauss_newton`, on the bones of :mod:`.target_bone`. The
unknowns are the camera's twist against the target bone (6), the bend of the spine (3), and the camera's twist against
the rest of the patient (6). Priors hold the bend, and the rest to the bone, as far as patients are held together. The
covariance of the target bone's pose is what remains when bend and rest are not known: it grows where they can stand in
for a motion of the bone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, inverse, moved_about, skew
from fluoronav.imaging.registration.gauss_newton import SETTINGS as GAUSS_NEWTON
from fluoronav.imaging.registration.gauss_newton import damped_step, twist_between
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE
from fluoronav.imaging.registration.similarity import normalise_patches, patch_correlations, patch_weights
from fluoronav.imaging.registration.target_bone import BoneLayer, LayeredModel, Layers, bend_to_twist

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How much a patient differs from the CT, 1 sigma, and how the fit goes.

    Attributes
    ----------
    bend_deg_per_100_mm : float
        Between the positions for the CT and for the operation a motion segment turns by a degree or two. Chosen.
    rest_deg : tuple of 3 float
        Turn of the rest against the target bone, about the patient's axes. Chosen.
    rest_mm : tuple of 3 float
        Shift of it: a breath moves the diaphragm by 10 mm along the body, the chest wall forward by 5. Chosen.
    coarse, fine : tuple of 2 int
        Patches: side in pixels, and their number, at 128 and 256 pixels. Chosen.
    apart : float
        Their spacing as in :class:`.PatchLevel`. Chosen.
    rounds : int
        Placements of the patches. Chosen.
    coarse_iterations, fine_iterations : int
        In each round. Chosen.
    groups : int
        Sub-fields of the patches, across and down. Chosen.
    unexplained : float
        The covariance and the scatter together, times this, are the covariance of the true errors. Fitted to 21
        exposures of the embedded case's spine, at rest, bent and breathed (:mod:`fluoronav.lab.simulation.deformed`).
    """

    bend_deg_per_100_mm: float = 6.0
    rest_deg: tuple[float, float, float] = (2.0, 1.0, 1.0)
    rest_mm: tuple[float, float, float] = (2.0, 4.0, 8.0)
    coarse: tuple[int, int] = (12, 60)
    fine: tuple[int, int] = (11, 200)
    apart: float = 0.7
    rounds: int = 2
    coarse_iterations: int = 10
    fine_iterations: int = 6
    groups: int = 3
    unexplained: float = 2.3


SETTINGS = FitSettings()
_TURN, _BEND, _REST, _POSE = slice(0, 6), slice(6, 9), slice(9, 15), slice(0, 9)
_UNKNOWNS = 15


@dataclass(frozen=True)
class LayeredPose:
    """Where the layers are in one frame.

    Attributes
    ----------
    T_camera_ct : ndarray, shape (4, 4)
        Of the target bone, mm.
    centre_ct : ndarray, shape (3,)
        Middle of the target bone, LPS mm.
    covariance : ndarray, shape (9, 9)
        Of the camera's twist (w, v) about the centre, CT axes, rad and mm, and of the bend, rad/mm; the rest unknown.
        It holds what the equations say and how far sub-fields of the patches disagree (delete-a-group jackknife).
    bend_rad_mm : ndarray, shape (3,)
    T_ct_rest : ndarray, shape (4, 4)
        As of :class:`.target_bone.LayeredModel`.
    score : float
        Weighted mean correlation of the patches.
    patches : int
        With a weight above 0.
    fit : float
        Mean correlation of all patches, those among them that do not fit; it does not weight them away.
    """

    T_camera_ct: Float
    centre_ct: Float
    covariance: Float
    bend_rad_mm: Float
    T_ct_rest: Float
    score: float
    patches: int
    fit: float

    def model(self, layers: Layers) -> LayeredModel:
        """The layers as they lie here."""
        return LayeredModel(layers, self.bend_rad_mm, self.T_ct_rest)

    def covariance_about(self, centre_ct: Float) -> Float:
        """Covariance of the camera's twist about another point of the target bone, CT axes, shape (6, 6)."""
        turn = self.covariance[:6, :6]
        about = np.eye(6)
        about[3:, :3] = -skew(centre_ct - self.centre_ct)
        return about @ turn @ about.T

    def bone(self, layers: Layers, bone: BoneLayer) -> tuple[Float, Float]:
        """Where a bone lies, as the bend puts it.

        Parameters
        ----------
        layers : Layers
        bone : BoneLayer
            One of its bones.

        Returns
        -------
        T_ct_bone : ndarray, shape (4, 4)
            Against the target bone, mm.
        covariance : ndarray, shape (6, 6)
            Of the camera's twist against the bone, about the bone's middle, CT axes.
        """
        by = np.zeros((6, 9))
        by[:, :6] = np.eye(6)
        by[3:, :3] = -skew(bone.centre_ct - self.centre_ct)
        by[:, 6:] = -bend_to_twist(bone, self.centre_ct)
        return self.model(layers).T_ct_bone(bone), by @ self.covariance @ by.T


@dataclass
class _System:
    """Normal equations of all patches, and of each."""

    A: Float
    g: Float
    score: float
    patches: int
    fit: float
    each_A: Float
    each_g: Float


class LayeredFit:
    """Fits the layers to frames; not reentrant.

    Parameters
    ----------
    layers : Layers
    camera : Camera
        At full resolution.
    """

    def __init__(self, layers: Layers, camera: Camera) -> None:
        self.coarse = PatchLevel(camera, COARSE_SIDE, *SETTINGS.coarse, SETTINGS.apart)
        self.fine = PatchLevel(camera, FINE_SIDE, *SETTINGS.fine, SETTINGS.apart)
        rays = max(level.model.shape[1] for level in (self.coarse, self.fine))
        self.model = LayeredModel(layers)
        self._columns = np.zeros((_UNKNOWNS + 1, rays), np.float32)
        self._part = np.zeros(7 * rays, np.float32)  # shaped for a level: kernels are compiled for contiguous rows
        per_mm = np.deg2rad(SETTINGS.bend_deg_per_100_mm) / 100
        self._bend_information = np.eye(3) / per_mm**2
        spread = np.concatenate([np.deg2rad(SETTINGS.rest_deg), SETTINGS.rest_mm])
        self._rest_information = np.diag(1 / spread**2)

    def fit(
        self,
        pyramid: dict[int, Float32],
        field_mask: NDArray[np.bool_],
        T_camera_ct: Float,
        before: LayeredPose | None = None,
        rounds: int = SETTINGS.rounds,
    ) -> LayeredPose | None:
        """The layers in one frame; None where no patch of the bones has a say.

        Parameters
        ----------
        pyramid : dict
            Attenuation by the longer side of the image.
        field_mask : ndarray of bool
            Field of view, any size.
        T_camera_ct : ndarray, shape (4, 4)
            Start, of the target bone.
        before : LayeredPose, optional
            Where bend and rest start; the CT's by default. The coarse level is left out then.
        rounds : int
            Placements of the patches.
        """
        model, centre = self.model, self.model.layers.target.centre_ct
        model.bend_rad_mm = np.zeros(3) if before is None else before.bend_rad_mm.copy()
        model.T_ct_rest = np.eye(4) if before is None else before.T_ct_rest.copy()
        T, T_rest = T_camera_ct, T_camera_ct @ model.T_ct_rest
        found = None
        for k in range(rounds):
            stages = [(self.coarse, COARSE_SIDE, SETTINGS.coarse_iterations)] if before is None and k == 0 else []
            for level, side, iterations in [*stages, (self.fine, FINE_SIDE, SETTINGS.fine_iterations)]:
                level.choose(model.bones, T, field_mask)
                if not level.count:
                    return None
                normalise_patches(
                    pyramid[side], level.first_row, level.first_col, level.size, level.frame_hat,
                    level.contrast[: level.count],
                )  # fmt: skip
                for _ in range(iterations):
                    found = self._system(level, T, T_rest, centre)
                    if found is None:
                        return None
                    step = damped_step(found.A, found.g)
                    T = inverse(moved_about(centre, step[_TURN]) @ inverse(T))
                    T_rest = inverse(moved_about(centre, step[_REST]) @ inverse(T_rest))
                    model.bend_rad_mm = model.bend_rad_mm + step[_BEND]
                    model.T_ct_rest = inverse(T) @ T_rest
                    if np.abs(step[3:6]).max() < 0.02 and np.abs(step[:3]).max() < 5e-4:
                        break
        assert found is not None
        own = np.linalg.inv(found.A + 1e-9 * np.diag(np.diag(found.A)))[_POSE, _POSE]
        covariance = SETTINGS.unexplained * (own + self._scatter(found, self.fine))
        bend, T_ct_rest = model.bend_rad_mm.copy(), model.T_ct_rest.copy()
        return LayeredPose(T, centre, covariance, bend, T_ct_rest, found.score, found.patches, found.fit)

    def _system(self, level: PatchLevel, T: Float, T_rest: Float, centre: Float) -> _System | None:
        """Normal equations at the present poses."""
        n, directions = level.directions.shape[1], level.directions
        columns, part = self._columns[:, :n], self._part[: 7 * n].reshape(7, n)
        columns[:] = 0
        self.model.layers.rest_and_derivatives(T_rest, directions, centre, part)
        columns[0] = part[0]
        columns[1 + 9 : 1 + 15] = part[1:]
        for bone in self.model.layers.bones:
            bone.projector.line_integrals_and_derivatives(T @ self.model.T_ct_bone(bone), directions, centre, part)
            columns[:7] += part
            if bone.along_mm:
                # A twist of the bone about its middle is the opposite one of the camera, here about the target's.
                twist = bend_to_twist(bone, centre)
                about = -twist
                about[3:] -= np.cross(twist[:3].T, centre - bone.centre_ct).T
                columns[7:10] += about.T.astype(np.float32) @ part[1:]
        found = _equations(level, columns)
        if found is None:
            return None
        A, g, B, P = found.A, found.g, self._bend_information, self._rest_information
        A[_BEND, _BEND] += B
        g[_BEND] -= B @ self.model.bend_rad_mm
        between = twist_between(T, T_rest, centre)
        A[_TURN, _TURN] += P
        A[_REST, _REST] += P
        A[_TURN, _REST] -= P
        A[_REST, _TURN] -= P
        g[_TURN] += P @ between
        g[_REST] -= P @ between
        return found

    def _scatter(self, found: _System, level: PatchLevel) -> Float:
        """How the sub-fields disagree: covariance by leaving out one after the other."""
        n, cells = level.count, SETTINGS.groups

        def cell(first: NDArray[np.int32]) -> NDArray[np.int64]:
            # Cells with as many patches each.
            return np.minimum(np.argsort(np.argsort(first, kind="stable"), kind="stable") * cells // n, cells - 1)

        group = cell(level.first_row) * cells + cell(level.first_col)
        steps = []
        for which in np.unique(group):
            left = group == which
            A = found.A - found.each_A[left].sum(0)
            g = found.g - found.each_g[left].sum(0)
            steps.append(damped_step(A, g)[_POSE])
        off = np.array(steps) - np.mean(steps, axis=0)
        return (len(steps) - 1) / len(steps) * off.T @ off


def _equations(level: PatchLevel, columns: Float32) -> _System | None:
    """As :func:`.gauss_newton.equations_of_model`, for any number of unknowns, and for each patch."""
    count, pixels = level.count, level.size**2
    used = count * pixels
    ncc, weights = level.ncc[:count], level.weights[:count]
    patch_correlations(level.frame_hat, np.ascontiguousarray(columns[0]), level.size, ncc)
    patch_weights(ncc, weights)
    total = float(weights.sum())
    if total <= 0:
        return None
    patches = columns[:, :used].reshape(len(columns), count, pixels).astype(np.float64)
    patches -= patches.mean(axis=2, keepdims=True)
    norm = np.maximum(np.linalg.norm(patches[0], axis=1), 1e-9)
    hat = patches[0] / norm[:, None]
    J = patches[1:]
    J = (J - hat * np.einsum("kpi,pi->kp", J, hat)[..., None]) / norm[:, None]
    frame = level.frame_hat[:used].reshape(count, pixels).astype(np.float64)
    J = J.transpose(1, 0, 2)  # of each patch
    each_A = weights[:, None, None] * (J @ J.transpose(0, 2, 1))
    each_g = weights[:, None] * (J @ (frame - hat)[..., None])[..., 0]
    cost = float(weights @ ((frame - hat) ** 2).sum(1))
    noise = max(cost / (total * (pixels - 2)), GAUSS_NEWTON.min_noise)
    scale = GAUSS_NEWTON.information_per_pixel / noise
    each_A *= scale
    each_g *= scale
    score, given = float(weights @ ncc) / total, int(np.count_nonzero(weights))
    return _System(each_A.sum(0), each_g.sum(0), score, given, float(ncc.mean()), each_A, each_g)
