"""Pose refinement: damped Gauss-Newton over normalised patches, with an optional prior on the pose."""

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


@dataclass(frozen=True)
class GaussNewtonSettings:
    """Damping, noise model and convergence of the refinement."""

    damping: float = 1e-3  # of the scaled equations; bounds steps in undetermined directions; chosen
    # Information of a pixel in units of 1 / residual variance. Fitted together with the floors in confidence.py to the
    # true errors of 400 registrations of five subjects at two doses (docs/registration.md); `bench registration` tests
    # it on other poses.
    information_per_pixel: float = 1.0
    min_noise: float = 1e-9  # residual variance of a normalised pixel; avoids a division by zero
    # Converged when the step is below the tolerance in the image plane, and, chosen:
    tolerance_mm: float = 0.01
    depth_tolerance: float = 5.0  # multiple of the tolerance, in depth
    rotation_radius_mm: float = 30.0  # at which the step's rotation is below the tolerance


SETTINGS = GaussNewtonSettings()


class CastsRays(Protocol):
    """A model for the CPU's kernels; see :class:`fluoronav.imaging.projector.Projector`."""

    def line_integrals_and_derivatives(
        self, T_camera_ct: Float, directions: NDArray[np.float32], centre_ct: Float, out: NDArray[np.float32], /
    ) -> None: ...


@dataclass(frozen=True)
class Equations:
    """Normal equations of one view.

    Attributes
    ----------
    information : ndarray, shape (6, 6)
        Inverse covariance of the twist (w, v), rad and mm, CT axes.
    gradient : ndarray, shape (6,)
        Right-hand side of the normal equations, in the units of the information.
    score : float
        Weighted mean correlation.
    patches : int
        Patches with a weight above 0.
    """

    information: Float
    gradient: Float
    score: float
    patches: int


@runtime_checkable
class FormsEquations(Protocol):
    """A model that forms the normal equations itself; see :class:`.graph_backend.GraphBackend`."""

    def equations(self, level: PatchLevel, T_camera_ct: Float, centre_ct: Float, /) -> Equations | None: ...


def kernel_equations(projector: CastsRays, level: PatchLevel, T_camera_ct: Float, centre_ct: Float) -> Equations | None:
    """Normal equations of one view by the CPU's kernels; None if no patch has a weight above 0.

    Writes the level's ``model``, ``ncc`` and ``weights``.

    Parameters
    ----------
    projector : CastsRays
    level : PatchLevel
        With its patches chosen and ``frame_hat`` written.
    T_camera_ct : ndarray, shape (4, 4)
    centre_ct : ndarray, shape (3,)
        Point about which the twist rotates, LPS mm.
    """
    projector.line_integrals_and_derivatives(T_camera_ct, level.directions, centre_ct, level.model)
    return equations_of_model(level)


def equations_of_model(level: PatchLevel) -> Equations | None:
    """The equations from a level's ``model`` (line integrals and derivatives); None where no patch has a say.

    Writes the level's ``ncc`` and ``weights``.
    """
    n = level.count
    ncc, weights = level.ncc[:n], level.weights[:n]
    patch_correlations(level.frame_hat, level.model[0], level.size, ncc)
    patch_weights(ncc, weights)
    total = float(weights.sum())
    if total <= 0:
        return None
    A, g = np.zeros((6, 6)), np.zeros(6)
    cost = normal_equations(level.frame_hat, level.model, level.size, weights, level.scratch, A, g)
    noise = max(cost / (total * (level.size**2 - 2)), SETTINGS.min_noise)
    scale = SETTINGS.information_per_pixel / noise
    return Equations(A * scale, g * scale, float(weights @ ncc) / total, int(np.count_nonzero(weights)))


@dataclass(frozen=True)
class PoseEstimate:
    """Result of a refinement.

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
        Patches with a weight above 0.
    settled : bool
        The last step was below the tolerance: the refinement has converged.
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
    go_on: Callable[[PatchLevel, Float], bool] = lambda _level, _T_camera_ct: True,
    tolerance_mm: float = SETTINGS.tolerance_mm,
    from_prior: Float | None = None,
) -> PoseEstimate:
    """Refines a pose so that the model fits one frame best.

    Parameters
    ----------
    projector : CastsRays or FormsEquations
        The model.
    levels : sequence of (PatchLevel, image, iterations)
        Coarse to fine: the frame's attenuation at the level's resolution and the maximum number of iterations.
    T_camera_ct : ndarray, shape (4, 4)
        Start, patient to camera, mm.
    centre_ct : ndarray, shape (3,)
        Point about which the twist rotates, LPS mm. In the middle of the bones, errors of rotation and translation
        correlate least.
    prior_information : ndarray, shape (6, 6), optional
        Inverse covariance of the prior, CT axes about `centre_ct`, rad and mm.
    go_on : callable
        Called with the level and the pose of the first view before each iteration but the first; False ends the
        refinement.
    tolerance_mm : float
        A level ends when the step moves the centre by less than this in the image plane and by less than five times
        this in depth, and when its rotation moves points at 30 mm by less than this.
    from_prior : ndarray, shape (6,), optional
        Twist from the prior's mean to the start (:func:`twist_between`); 0 by default.

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
    go_on: Callable[[PatchLevel, Float], bool] = lambda _level, _T_camera_ct: True,
    tolerance_mm: float = SETTINGS.tolerance_mm,
    from_prior: Float | None = None,
) -> list[PoseEstimate]:
    """Refines the patient's pose so that the model fits all views of one moment best.

    The twist moves all cameras alike in the CT frame. The normal equations of the views therefore add up, each scaled
    by its own residual variance.

    Parameters
    ----------
    rounds : sequence of (views, iterations)
        Coarse to fine; `views` has a (PatchLevel, image) for each camera, in the order of `T_cameras_ct`.
    T_cameras_ct : sequence of ndarray, shape (4, 4)
        Start of each view. The poses of the cameras relative to each other do not change.

    Other parameters are those of :func:`refine`.

    Returns
    -------
    list of PoseEstimate
        One per view, with the score of the view and the information of all views together.
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
        settled = False  # a pose of a coarser level alone has not settled
        for level, image in views:
            n = level.count
            normalise_patches(image, level.first_row, level.first_col, level.size, level.frame_hat, level.contrast[:n])
        for _ in range(iterations):
            if done and not go_on(views[0][0], poses[0]):
                break
            of_views = [
                form(level, T, centre_ct) if level.count else None for (level, _), T in zip(views, poses, strict=True)
            ]
            scores, used = [e.score if e else 0.0 for e in of_views], [e.patches if e else 0 for e in of_views]
            information, gradient = np.zeros((6, 6)), np.zeros(6)
            for equations in of_views:
                if equations is not None:
                    information += equations.information
                    gradient += equations.gradient
            done += 1
            if not any(used):
                return estimates()
            system = information
            if prior_information is not None:
                system = information + prior_information
                gradient = gradient - prior_information @ moved
            step = damped_step(system, gradient)
            motion = moved_about(centre_ct, step)
            poses = [inverse(motion @ inverse(T)) for T in poses]
            moved += step
            settled = _is_small(step, poses[0], tolerance_mm)
            if settled:
                break
    return estimates()


def damped_step(system: Float, gradient: Float) -> Float:
    """Solves normal equations of any number of unknowns, scaled to a unit diagonal and damped."""
    scale = 1 / np.sqrt(np.maximum(np.diag(system), 1e-12))
    damped = system * np.outer(scale, scale) + SETTINGS.damping * np.eye(len(system))
    return scale * np.linalg.solve(damped, scale * gradient)


def _is_small(step: Float, T_camera_ct: Float, tolerance_mm: float) -> bool:
    """Whether a step is below the tolerance in the image plane, in depth and in rotation."""
    shift = np.abs(T_camera_ct[:3, :3] @ step[3:])
    translation_small = shift[:2].max() < tolerance_mm and shift[2] < SETTINGS.depth_tolerance * tolerance_mm
    return bool(translation_small and np.abs(step[:3]).max() < tolerance_mm / SETTINGS.rotation_radius_mm)


def twist_between(T_prior: Float, T_now: Float, centre_ct: Float) -> Float:
    """Twist (w, v) of the camera about a point, CT axes, from one pose to another, to first order.

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
