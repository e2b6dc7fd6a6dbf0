"""The reference marker's pose on the patient, from images of a tool that the tracker sees, too."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares

from fluoronav.geometry import Camera, inverse, moved_about, transform_points
from fluoronav.stream.priority import beside_the_frame_path
from fluoronav.stream.tracking.triangulation import ImageObservation

Float = NDArray[np.float64]


@dataclass(frozen=True)
class CorrespondenceLimits:
    """Which correspondences are kept, and when the pose is solved for; all chosen.

    One that repeats another adds no information: the tool has moved or turned, or the C-arm has.
    """

    min_motion_mm: float = 6.0
    min_turn_deg: float = 6.0
    min_count: int = 12  # before the first solution
    count_step: int = 4  # new ones before the next solution
    max_count: int = 80


@dataclass(frozen=True)
class SolverLimits:
    """When a solution is used; all chosen on simulated tools (tests/stream/tracking/test_tracker_registration.py)."""

    max_sigma_mm: float = 1.0  # at the centre of the correspondences, in the worst direction
    final_sigma_mm: float = 0.3  # no further correspondences are taken
    max_residual: float = 2.0  # robust sigma of the residuals, in expected sigmas
    huber_sigmas: float = 2.0  # larger residuals count linearly
    max_condition: float = 1e8  # of the scaled information matrix
    # The start is from the correspondences of one view: breathing moves the patient a little.
    min_count: int = 6
    one_view_deg: float = 5.0
    start_residual_px: float = 12.0  # of RANSAC's inliers
    min_spread_mm: float = 4.0  # of the tips, in the second of their principal directions


COLLECTION, SOLVER = CorrespondenceLimits(), SolverLimits()
_AXIS_MM = 20.0  # length of the shaft whose projection gives the direction
_QUARTILE = 0.6745  # median of the absolute value of a standard normal variable


@dataclass(frozen=True)
class Correspondence:
    """A tool in one registered image, and at the same time in the marker's frame.

    Attributes
    ----------
    image : ImageObservation
    tip_reference, axis_reference : ndarray, shape (3,)
        mm; the unit axis points from the tail to the tip.
    """

    image: ImageObservation
    tip_reference: Float
    axis_reference: Float


@dataclass(frozen=True)
class ReferencePose:
    """The marker on the patient.

    Attributes
    ----------
    T_ct_reference : ndarray, shape (4, 4)
    covariance : ndarray, shape (6, 6)
        Of the twist (w, v) about ``centre_ct``, CT axes, rad and mm.
    centre_ct : ndarray, shape (3,)
        Mean of the correspondences' tips.
    residual : float
        Robust sigma of the residuals, in expected sigmas.
    count : int
        Correspondences used.
    """

    T_ct_reference: Float
    covariance: Float
    centre_ct: Float
    residual: float
    count: int

    def sigma_mm(self, point_ct: Float) -> float:
        """Error at a point in the worst direction, 1 sigma."""
        x, y, z = point_ct - self.centre_ct
        J = np.hstack([np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]]), np.eye(3)])
        return float(np.sqrt(np.linalg.eigvalsh(J @ self.covariance @ J.T)[-1]))


def reference_pose(camera: Camera, correspondences: list[Correspondence]) -> ReferencePose | None:
    """Solves for the marker's pose.

    Perspective-n-point from one view (SQPnP: Terzakis and Lourakis, ECCV 2020, within RANSAC), then least squares with
    Huber's loss over tips and directions of all views.

    Parameters
    ----------
    camera : Camera
    correspondences : list of Correspondence

    Returns
    -------
    ReferencePose or None
        None where the tool has not been moved and turned enough.
    """
    if len(correspondences) < SOLVER.min_count:
        return None
    T = _start(camera, correspondences)
    if T is None:
        return None
    stacked = _Stacked.of(correspondences)
    try:
        T, _ = _solve(camera, stacked, T)
        # Again from the solution, so that the covariance is of a twist about its own centre.
        T, solved = _solve(camera, stacked, T)
    except ValueError:  # a tool behind the source
        return None
    information = solved.jac.T @ solved.jac
    if not np.isfinite(information).all() or np.linalg.cond(_scaled(information)) > SOLVER.max_condition:
        return None
    # The median: a correspondence of another instrument does not count.
    residual = float(np.median(np.abs(solved.fun)) / _QUARTILE)
    covariance = np.linalg.inv(information) * max(residual, 1.0) ** 2
    centre_ct = transform_points(T, stacked.tips).mean(0)
    return ReferencePose(T, np.asarray(covariance, np.float64), centre_ct, residual, len(correspondences))


def _solve(camera: Camera, stacked: _Stacked, T_start: Float) -> tuple[Float, OptimizeResult]:
    """The pose nearest to a start, and SciPy's solution for the twist about the tips' centre."""
    centre_ct = transform_points(T_start, stacked.tips).mean(0)

    def residuals(twist: Float) -> Float:
        return _residuals(camera, stacked, moved_about(centre_ct, twist) @ T_start)

    solved = least_squares(
        residuals, np.zeros(6), jac="3-point", x_scale="jac", loss="huber", f_scale=SOLVER.huber_sigmas
    )
    return moved_about(centre_ct, solved.x) @ T_start, solved


class TrackerRegistration:
    """Collects correspondences while the tool is moved about, and solves in the background.

    Parameters
    ----------
    camera : Camera
    """

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._correspondences: list[Correspondence] = []
        self._solved_at = 0
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix="tracker-registration", initializer=beside_the_frame_path
        )
        self._solving: Future[ReferencePose | None] | None = None
        self.found: ReferencePose | None = None

    @property
    def count(self) -> int:
        """Correspondences kept."""
        return len(self._correspondences)

    def add(self, correspondence: Correspondence) -> None:
        """Keeps a correspondence that differs from all others, while the solution can still improve."""
        if self.found is not None and self.found.sigma_mm(self.found.centre_ct) < SOLVER.final_sigma_mm:
            return
        if self.count < COLLECTION.max_count and all(_differs(correspondence, kept) for kept in self._correspondences):
            self._correspondences.append(correspondence)

    def idle(self) -> None:
        """Takes a solution that is ready and starts the next one; not on the frame path."""
        if self._solving is not None:
            if not self._solving.done():
                return
            done, self._solving = self._solving, None
            found = done.result()
            if (
                found is not None
                and found.residual < SOLVER.max_residual
                and found.sigma_mm(found.centre_ct) < SOLVER.max_sigma_mm
            ):
                self.found = found
        if self.count >= max(COLLECTION.min_count, self._solved_at + COLLECTION.count_step):
            self._solved_at = self.count
            self._solving = self._worker.submit(reference_pose, self._camera, list(self._correspondences))

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)


def _differs(a: Correspondence, b: Correspondence) -> bool:
    if np.linalg.norm(a.tip_reference - b.tip_reference) > COLLECTION.min_motion_mm:
        return True
    tool_cos = np.clip(a.axis_reference @ b.axis_reference, -1, 1)
    beam_cos = np.clip(a.image.T_camera_ct[2, :3] @ b.image.T_camera_ct[2, :3], -1, 1)
    return bool(np.rad2deg(np.arccos(min(tool_cos, beam_cos))) > COLLECTION.min_turn_deg)


def _start(camera: Camera, correspondences: list[Correspondence]) -> Float | None:
    """The pose by perspective-n-point from the view with most correspondences; None where these do not suffice."""
    beams = np.array([c.image.T_camera_ct[2, :3] for c in correspondences])
    one_view = beams @ beams.T > np.cos(np.deg2rad(SOLVER.one_view_deg))
    view = int(one_view.sum(1).argmax())
    chosen = [c for c, same in zip(correspondences, one_view[view], strict=True) if same]
    if len(chosen) < SOLVER.min_count:
        return None
    tips = np.array([c.tip_reference for c in chosen])
    spread = np.linalg.svd(tips - tips.mean(0), compute_uv=False) / np.sqrt(len(tips))
    if spread[1] < SOLVER.min_spread_mm:
        return None
    rays = np.array([camera.rays(c.image.tip_px)[:2] for c in chosen])
    found, turn, shift, _ = cv2.solvePnPRansac(
        tips, rays, np.eye(3), None, iterationsCount=300, reprojectionError=SOLVER.start_residual_px / camera.focal_px,
        flags=cv2.SOLVEPNP_SQPNP,
    )  # fmt: skip
    if not found:
        return None
    T_camera_reference = np.eye(4)
    T_camera_reference[:3, :3], T_camera_reference[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
    return inverse(correspondences[view].image.T_camera_ct) @ T_camera_reference


@dataclass(frozen=True)
class _Stacked:
    """Correspondences as arrays, the first axis over them."""

    T_camera_ct: Float
    tips: Float
    axes: Float
    tip_px: Float
    direction: Float
    sigma_px: Float
    sigma_deg: Float

    @classmethod
    def of(cls, correspondences: list[Correspondence]) -> _Stacked:
        images = [c.image for c in correspondences]
        return cls(
            np.array([i.T_camera_ct for i in images]),
            np.array([c.tip_reference for c in correspondences]),
            np.array([c.axis_reference for c in correspondences]),
            np.array([i.tip_px for i in images]),
            np.array([i.direction for i in images]),
            np.array([i.sigma_px for i in images]),
            np.array([i.sigma_deg for i in images]),
        )


def _residuals(camera: Camera, c: _Stacked, T_ct_reference: Float) -> Float:
    """Residuals of tips (two each) and directions (one each), in sigmas, shape (3 n,)."""
    T = c.T_camera_ct @ T_ct_reference
    tip = np.einsum("nij,nj->ni", T[:, :3, :3], c.tips) + T[:, :3, 3]
    behind = tip - _AXIS_MM * np.einsum("nij,nj->ni", T[:, :3, :3], c.axes)
    tip_px = camera.project(tip)
    shaft = tip_px - camera.project(behind)
    length = np.linalg.norm(shaft, axis=1)
    ahead = shaft / np.maximum(length, 1e-9)[:, None]
    cross = ahead[:, 0] * c.direction[:, 1] - ahead[:, 1] * c.direction[:, 0]
    turn_deg = np.rad2deg(np.arctan2(cross, np.einsum("ni,ni->n", ahead, c.direction)))
    # An instrument that points at the source has no direction in the image.
    weight = np.minimum(length / _AXIS_MM, 1.0) / c.sigma_deg
    return np.column_stack([(tip_px - c.tip_px) / c.sigma_px[:, None], turn_deg * weight]).ravel()


def _scaled(information: Float) -> Float:
    """An information matrix with a diagonal of 1."""
    size = 1 / np.sqrt(np.maximum(np.diag(information), 1e-30))
    return information * np.outer(size, size)
