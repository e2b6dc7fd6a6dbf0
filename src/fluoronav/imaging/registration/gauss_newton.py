"""Pose refinement: damped Gauss-Newton over normalised patches, with the last pose as a prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import inverse, log_so3, moved_about, transform_points
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.similarity import (
    normal_equations,
    normalise_patches,
    patch_correlations,
    patch_weights,
)

Float = NDArray[np.float64]

# Relative damping of the scaled normal equations: enough to keep a direction that no patch sees from running away.
_DAMPING = 1e-3
# How much a pixel tells, and the floors in confidence.py: found by comparing the covariance with the true errors of 400
# registrations of five subjects at two doses (docs/registration.md); `bench registration` checks it on other poses.
_INFORMATION_PER_PIXEL = 1.0
# When a step is small: depth as a multiple of the tolerance, and the radius at which a rotation is judged.
DEPTH_TOLERANCE, RADIUS_MM = 5.0, 30.0


class CastsRays(Protocol):
    """A model whose equations the CPU's kernels form; see :class:`fluoronav.imaging.projector.Projector`."""

    def line_integrals_and_derivatives(
        self, T_camera_ct: Float, directions: NDArray[np.float32], centre_ct: Float, out: NDArray[np.float32], /
    ) -> None: ...


@dataclass(frozen=True)
class Equations:
    """What one view says of the next step.

    Attributes
    ----------
    information : ndarray, shape (6, 6)
    gradient : ndarray, shape (6,)
        Right-hand side of the normal equations, scaled as the information is.
    score : float
        Weighted mean correlation.
    patches : int
        That have a say.
    """

    information: Float
    gradient: Float
    score: float
    patches: int


@runtime_checkable
class FormsEquations(Protocol):
    """A model that forms the equations by itself; see :class:`.graph_backend.GraphBackend`."""

    def equations(self, level: PatchLevel, T_camera_ct: Float, centre_ct: Float, /) -> Equations | None: ...


def kernel_equations(projector: CastsRays, level: PatchLevel, T_camera_ct: Float, centre_ct: Float) -> Equations | None:
    """The equations of one view by the CPU's kernels; None where no patch has a say.

    Writes the level's ``model``, ``ncc`` and ``weights``.
    """
    n = level.count
    ncc, weights = level.ncc[:n], level.weights[:n]
    projector.line_integrals_and_derivatives(T_camera_ct, level.directions, centre_ct, level.model)
    patch_correlations(level.frame_hat, level.model[0], level.size, ncc)
    patch_weights(ncc, weights)
    total = float(weights.sum())
    if total <= 0:
        return None
    A, g = np.zeros((6, 6)), np.zeros(6)
    cost = normal_equations(level.frame_hat, level.model, level.size, weights, level.scratch, A, g)
    noise = max(cost / (total * (level.size**2 - 2)), 1e-9)
    scale = _INFORMATION_PER_PIXEL / noise
    return Equations(A * scale, g * scale, float(weights @ ncc) / total, int(np.count_nonzero(weights)))


@dataclass(frozen=True)
class PoseEstimate:
    """What a refinement found.

    Attributes
    ----------
    T_camera_ct : ndarray, shape (4, 4)
    score : float
        Weighted mean correlation of the patches, 0 to 1.
    information : ndarray, shape (6, 6)
        Inverse covariance of the twist (w, v), rad and mm, CT axes about `centre_ct`, from this frame alone.
    centre_ct : ndarray, shape (3,)
    iterations : int
    patches : int
        Patches that had a say.
    settled : bool
        The last step was small: it has arrived.
    """

    T_camera_ct: Float
    score: float
    information: Float
    centre_ct: Float
    iterations: int
    patches: int
    settled: bool = True


def refine(
    projector: CastsRays | FormsEquations,
    levels: Sequence[tuple[PatchLevel, NDArray[np.float32], int]],
    T_camera_ct: Float,
    centre_ct: Float,
    prior_information: Float | None = None,
    go_on: Callable[[], bool] = lambda: True,
    tolerance_mm: float = 0.01,
    from_prior: Float | None = None,
) -> PoseEstimate:
    """Moves a pose to where the model fits the frame best.

    Parameters
    ----------
    projector : CastsRays or FormsEquations
        Of the registration's model.
    levels : sequence of (PatchLevel, image, iterations)
        Coarse to fine; each with the frame's attenuation at its resolution and the most iterations to spend.
    T_camera_ct : ndarray, shape (4, 4)
        Start.
    centre_ct : ndarray, shape (3,)
        The twist turns about this point; the errors of rotation and translation then mix least.
    prior_information : ndarray, shape (6, 6), optional
        Inverse covariance of the start, CT axes about `centre_ct`; pulls towards the start.
    go_on : callable
        Asked before each iteration but the first; False ends the refinement (the time is up).
    tolerance_mm : float
        A level ends when a step moves the centre by less in the image plane, by less than five times that in depth,
        and points 30 mm off by less through its rotation.
    from_prior : ndarray, shape (6,), optional
        Twist from the prior's mean to the start, where they differ (:func:`twist_between`).

    Returns
    -------
    PoseEstimate
    """
    rounds = [([(level, image)], iterations) for level, image, iterations in levels]
    return refine_views(
        projector, rounds, [T_camera_ct], centre_ct, prior_information, go_on, tolerance_mm, from_prior
    )[0]


def refine_views(
    projector: CastsRays | FormsEquations,
    rounds: Sequence[tuple[Sequence[tuple[PatchLevel, NDArray[np.float32]]], int]],
    T_cameras_ct: Sequence[Float],
    centre_ct: Float,
    prior_information: Float | None = None,
    go_on: Callable[[], bool] = lambda: True,
    tolerance_mm: float = 0.01,
    from_prior: Float | None = None,
) -> list[PoseEstimate]:
    """Moves the patient to where the model fits all views of one moment best.

    The twist moves every camera in the CT frame alike, so the views' normal equations simply add up, each scaled by its
    own residual noise.

    Parameters
    ----------
    rounds : sequence of (views, iterations)
        Coarse to fine; `views` holds a (PatchLevel, image) for each camera, in the order of `T_cameras_ct`.
    T_cameras_ct : sequence of ndarray, shape (4, 4)
        Start, one per view; their differences are the calibration and stay as they are.

    Other parameters are those of :func:`refine`.

    Returns
    -------
    list of PoseEstimate
        One per view, with the view's own score; the information is that of all views together.
    """
    poses = [np.array(T, dtype=np.float64) for T in T_cameras_ct]
    form = projector.equations if isinstance(projector, FormsEquations) else partial(kernel_equations, projector)
    moved = np.zeros(6) if from_prior is None else np.array(from_prior, dtype=np.float64)  # to first order
    scores, used, done = [0.0] * len(poses), [0] * len(poses), 0
    information = np.zeros((6, 6))
    settled = False

    def estimates() -> list[PoseEstimate]:
        centre = np.asarray(centre_ct, dtype=np.float64)
        return [
            PoseEstimate(T, max(score, 0.0), information, centre, done, patches, settled)
            for T, score, patches in zip(poses, scores, used, strict=True)
        ]

    for views, iterations in rounds:
        for level, image in views:
            n = level.count
            normalise_patches(image, level.first_row, level.first_col, level.size, level.frame_hat, level.contrast[:n])
        for _ in range(iterations):
            if done and not go_on():
                break
            information, gradient = np.zeros((6, 6)), np.zeros(6)
            for v, (level, _) in enumerate(views):
                scores[v], used[v] = 0.0, 0
                said = form(level, poses[v], centre_ct) if level.count else None
                if said is None:
                    continue
                scores[v], used[v] = said.score, said.patches
                information += said.information
                gradient += said.gradient
            done += 1
            if not any(used):
                return estimates()
            system = information
            if prior_information is not None:
                system = information + prior_information
                gradient = gradient - prior_information @ moved
            scale = 1 / np.sqrt(np.maximum(np.diag(system), 1e-12))
            step = scale * np.linalg.solve(system * np.outer(scale, scale) + _DAMPING * np.eye(6), scale * gradient)
            motion = moved_about(centre_ct, step)
            poses = [inverse(motion @ inverse(T)) for T in poses]
            moved += step
            shift = np.abs(poses[0][:3, :3] @ step[3:])
            still = shift[:2].max() < tolerance_mm and shift[2] < DEPTH_TOLERANCE * tolerance_mm
            settled = bool(still and np.abs(step[:3]).max() < tolerance_mm / RADIUS_MM)
            if settled:
                break
    return estimates()


def twist_between(T_prior: Float, T_now: Float, centre_ct: Float) -> Float:
    """The camera's twist (w, v) about a point, CT axes, that leads from one pose to another, to first order.

    Parameters
    ----------
    T_prior, T_now : ndarray, shape (4, 4)
        Patient to camera, mm.
    centre_ct : ndarray, shape (3,)

    Returns
    -------
    ndarray, shape (6,)
        rad and mm; the `from_prior` of :func:`refine_views`.
    """
    M = inverse(T_now) @ T_prior
    return np.concatenate([log_so3(M[:3, :3]), transform_points(M, centre_ct) - centre_ct])
