"""Where the tracker's reference marker is on the patient, found from pictures of a tool that the tracker sees too."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera, inverse, moved_about, transform_points
from fluoronav.stream.priority import beside_the_frame_path
from fluoronav.stream.tracking.triangulation import Sighting

Float = NDArray[np.float64]

# A pair is kept when the tool has moved, turned, or the C-arm has: the same one again teaches nothing.
_MOVED_MM, _TURNED_DEG, _LEAST_PAIRS, _MOST_PAIRS = 6.0, 6.0, 12, 80
# The answer is used when it is this good in the middle of the pairs (1 sigma, its worst direction), and they agree.
GOOD_MM, _RESIDUAL = 1.0, 2.0
_GOOD_ENOUGH_MM = 0.3
_ROUNDS, _HUBER = 20, 2.0
# Pairs of one view for the start: the patient breathes, so its pose need not be quite the same.
_ONE_VIEW_DEG, _START_PX = 5.0, 12.0
_LEAST_SPREAD_MM = 4.0  # of the tips, in two directions at least


@dataclass(frozen=True)
class Pair:
    """A tool in one registered picture, and at the same moment in the marker's frame.

    Attributes
    ----------
    seen : Sighting
    tip_reference, axis_reference : ndarray, shape (3,)
        mm; the unit axis points from the tail to the tip.
    """

    seen: Sighting
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
        Middle of the tips of the pairs.
    residual : float
        Root of the mean squared error over its expected value.
    pairs : int
    """

    T_ct_reference: Float
    covariance: Float
    centre_ct: Float
    residual: float
    pairs: int

    def sigma_mm(self, point_ct: Float) -> float:
        """Error at a point, its worst direction, 1 sigma."""
        x, y, z = point_ct - self.centre_ct
        J = np.hstack([np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]]), np.eye(3)])
        return float(np.sqrt(np.linalg.eigvalsh(J @ self.covariance @ J.T)[-1]))


def reference_pose(camera: Camera, pairs: list[Pair]) -> ReferencePose | None:
    """Solves for the marker's pose.

    Perspective-n-point from one view (SQPnP: Terzakis and Lourakis, ECCV 2020, within RANSAC), then Gauss-Newton with
    Huber's weights over tips and directions of all views.

    Returns
    -------
    ReferencePose or None
        None where the tool has not been moved and turned enough to tell.
    """
    if len(pairs) < 6:
        return None
    T = _start(camera, pairs)
    if T is None:
        return None
    tips = np.array([p.tip_reference for p in pairs])
    information = np.eye(6)
    for _ in range(_ROUNDS):
        centre_ct = transform_points(T, tips).mean(0)
        r = _residuals(camera, pairs, T)
        J = np.stack([_moved(camera, pairs, T, centre_ct, k) for k in range(6)], axis=-1)
        weight = np.minimum(1, _HUBER / np.maximum(np.abs(r), 1e-9))
        information = J.T @ (weight[:, None] * J)
        if not np.isfinite(information).all() or np.linalg.cond(_scaled(information)) > 1e8:
            return None
        step = -np.linalg.solve(information + 1e-9 * np.diag(np.diag(information)), J.T @ (weight * r))
        T = moved_about(centre_ct, step) @ T
        if np.abs(step[:3]).max() < 1e-6 and np.abs(step[3:]).max() < 1e-4:
            break
    r = _residuals(camera, pairs, T)
    # The middle error, so that a pair that shows something else does not count.
    residual = float(np.median(np.abs(r)) / 0.6745)
    covariance = np.linalg.inv(information) * max(residual, 1.0) ** 2
    return ReferencePose(T, np.asarray(covariance, np.float64), transform_points(T, tips).mean(0), residual, len(pairs))


class TrackerRegistration:
    """Collects pairs while the tool is moved about, and solves in the background."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._pairs: list[Pair] = []
        self._solved_at = 0
        self._worker = ThreadPoolExecutor(
            1, thread_name_prefix="tracker-registration", initializer=beside_the_frame_path
        )
        self._solving: Future[ReferencePose | None] | None = None
        self.found: ReferencePose | None = None

    @property
    def pairs(self) -> int:
        return len(self._pairs)

    def add(self, pair: Pair) -> None:
        """Keeps a pair that shows something new, while the answer can still get better."""
        if self.found is not None and self.found.sigma_mm(self.found.centre_ct) < _GOOD_ENOUGH_MM:
            return
        if len(self._pairs) < _MOST_PAIRS and all(_differs(pair, kept) for kept in self._pairs):
            self._pairs.append(pair)

    def idle(self) -> None:
        """Takes a solution that is ready and starts the next one; not on the frame path."""
        if self._solving is not None:
            if not self._solving.done():
                return
            found, self._solving = self._solving.result(), None
            if found is not None and found.residual < _RESIDUAL and found.sigma_mm(found.centre_ct) < GOOD_MM:
                self.found = found
        if len(self._pairs) >= max(_LEAST_PAIRS, self._solved_at + 4):
            self._solved_at = len(self._pairs)
            self._solving = self._worker.submit(reference_pose, self._camera, list(self._pairs))

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)


def _differs(a: Pair, b: Pair) -> bool:
    if np.linalg.norm(a.tip_reference - b.tip_reference) > _MOVED_MM:
        return True
    turned = np.clip(a.axis_reference @ b.axis_reference, -1, 1)
    swung = np.clip(a.seen.T_camera_ct[2, :3] @ b.seen.T_camera_ct[2, :3], -1, 1)
    return bool(np.rad2deg(np.arccos(min(turned, swung))) > _TURNED_DEG)


def _start(camera: Camera, pairs: list[Pair]) -> Float | None:
    """The pose from the tips of the view with most pairs, by perspective-n-point; None where it has none."""
    axes = np.array([p.seen.T_camera_ct[2, :3] for p in pairs])
    alike = axes @ axes.T > np.cos(np.deg2rad(_ONE_VIEW_DEG))
    view = int(alike.sum(1).argmax())
    chosen = [p for p, same in zip(pairs, alike[view], strict=True) if same]
    if len(chosen) < 6:
        return None
    tips = np.array([p.tip_reference for p in chosen])
    spread = np.linalg.svd(tips - tips.mean(0), compute_uv=False) / np.sqrt(len(tips))
    if spread[1] < _LEAST_SPREAD_MM:
        return None
    seen = np.array([camera.rays(p.seen.tip_px)[:2] for p in chosen])
    found, turn, shift, _ = cv2.solvePnPRansac(
        tips, seen, np.eye(3), None, iterationsCount=300, reprojectionError=_START_PX / camera.focal_px,
        flags=cv2.SOLVEPNP_SQPNP,
    )  # fmt: skip
    if not found:
        return None
    T_camera_reference = np.eye(4)
    T_camera_reference[:3, :3], T_camera_reference[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
    return inverse(pairs[view].seen.T_camera_ct) @ T_camera_reference


def _residuals(camera: Camera, pairs: list[Pair], T_ct_reference: Float) -> Float:
    """Of tips (two each) and directions (one each), in sigmas, shape (3 n,)."""
    out = np.empty((len(pairs), 3))
    for k, p in enumerate(pairs):
        T = p.seen.T_camera_ct @ T_ct_reference
        tip = transform_points(T, p.tip_reference)
        ends = camera.project(np.stack([tip, tip - 20.0 * (T[:3, :3] @ p.axis_reference)]))
        ahead = ends[0] - ends[1]
        ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-9)
        d = p.seen.direction
        off = np.rad2deg(np.arctan2(ahead[0] * d[1] - ahead[1] * d[0], ahead @ d))
        out[k, :2] = (ends[0] - p.seen.tip_px) / p.seen.sigma_px
        # An instrument that points at the source has no direction in the picture.
        long = min(float(np.linalg.norm(ends[0] - ends[1])) / 20.0, 1.0)
        out[k, 2] = off * long / p.seen.sigma_deg
    return out.ravel()


def _moved(camera: Camera, pairs: list[Pair], T: Float, centre_ct: Float, k: int) -> Float:
    """Derivative of the residuals by one component of the twist, by central differences."""
    h = 1e-5 if k < 3 else 1e-3
    step = np.zeros(6)
    step[k] = h
    ahead = _residuals(camera, pairs, moved_about(centre_ct, step) @ T)
    return (ahead - _residuals(camera, pairs, moved_about(centre_ct, -step) @ T)) / (2 * h)


def _scaled(information: Float) -> Float:
    size = 1 / np.sqrt(np.maximum(np.diag(information), 1e-30))
    return information * np.outer(size, size)
