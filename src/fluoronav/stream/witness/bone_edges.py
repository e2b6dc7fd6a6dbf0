"""Whether projected bone edges lie on edges of the picture: against shifted copies of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Structure
from fluoronav.case.surfaces import surface_points
from fluoronav.geometry import Camera
from fluoronav.kernels import njit
from fluoronav.stream.witness.evidence import Verdict
from fluoronav.stream.witness.projection import intrinsics, moved, projected

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """When projected edges lie on edges; pixels are of the picture that is used.

    Attributes
    ----------
    most_points, groups : int
        Of the bones' surfaces in a frame, chosen for 0.4 ms; and how many such groups take turns, so that the sum over
        frames is of more of them.
    rim_cos : float
        A surface whose normal is this near to a right angle with the ray is an edge of its shadow. Fitted on the demo's
        sequence: of 0.12, 0.25 and 0.4 the surest best copy.
    most_rim, least_rim : int
        Pixels on edges that are used, and that a verdict needs; chosen.
    pixel_mm : float
        Size of a pixel at the target in the picture that is used, as near as the pyramid has it. Fitted: 0.35, 0.7.
    edge_px, around_px : float, int
        A Gaussian and a square mean whose difference is taken before the gradient, so that a wide slope (from lung to
        spine) is no edge. Fitted, of seven pairs of Gaussians.
    half_per_px : float
        Gradient that counts half, per pixel: little, so that its direction counts and metal weighs as bone does.
        Fitted: of 0.005, 0.015, 0.05 and 1.
    reach_px : int
        Copies are shifted by so much to each side; chosen: 5 mm.
    forgets : float
        Weight of the frames before in the sum; fitted (`bench witness`), of 0 to 0.75.
    least_summed : int
        Frames that a verdict needs; chosen: the noise of one is as large as what is looked for.
    near_px, far_px : float
        Copies this near and nearer count as in place, from this far on as beside; fitted: 1.1 and 1.8 mm.
    lead, most_lead : float
        A copy beside is better where its score is higher by this much, in standard deviations over all copies; more
        than the second counts as that. Fitted (`bench witness`).
    least_sigmas : float
        And by so many standard deviations of the scores' noise, which dose and detector decide; fitted likewise.
    noise_frames : float
        Over which the noise is learned; chosen.
    margin_px : int
        Beside the field's edge, where a shadow's edge may be the collimator's; chosen.
    """

    most_points: int = 8_000
    groups: int = 3
    rim_cos: float = 0.25
    most_rim: int = 4000
    least_rim: int = 500
    pixel_mm: float = 0.7
    edge_px: float = 1.2
    around_px: int = 9
    half_per_px: float = 0.005
    reach_px: int = 7
    forgets: float = 0.4
    least_summed: int = 3
    near_px: float = 1.5
    far_px: float = 2.5
    lead: float = 0.3
    most_lead: float = 0.8
    least_sigmas: float = 1.5
    noise_frames: float = 8.0
    margin_px: int = 4


LIMITS = EdgeLimits()
_RIM_COS, _REACH_PX = LIMITS.rim_cos, LIMITS.reach_px
_SHIFTS = 2 * _REACH_PX + 1
_LANES = _SHIFTS + 1
_NOISE_LEFT = float(np.sqrt((1 - LIMITS.forgets) / (1 + LIMITS.forgets)))  # in a sum over frames
_SUPPORT_PX = max(LIMITS.around_px // 2, int(4 * LIMITS.edge_px + 1))  # of both filters, to each side
_SIDES = (512, 256, 128)  # of the pyramid

NO_BONES = Verdict("cannot_say", "no_bones")
FEW_EDGES = Verdict("cannot_say", "few_edges")
BEGUN = Verdict("cannot_say", "begun")
NO_CONTRAST = Verdict("cannot_say", "no_contrast")


@njit(cache=True, nogil=True)
def project_rims(points, normals, T_camera_ct, camera, owner, stamp, at_px, out_of_bone):
    """Points of a surface at which rays touch it, in the picture: those of one pixel are one.

    Parameters
    ----------
    points, normals : ndarray of float32, shape (n, 3)
        LPS mm; normals point out of the bone.
    T_camera_ct : ndarray, shape (4, 4)
    camera : ndarray, shape (17,)
    owner : ndarray of int64, shape (rows, cols)
        Of the picture; `stamp` plus the number of the point that a pixel has. Is changed.
    stamp : int
        Larger than what `owner` holds.
    at_px : ndarray of int32, shape (m, 2)
        Column and row; is filled.
    out_of_bone : ndarray of float32, shape (m, 2)
        Sums of unit vectors in the picture; is filled.

    Returns
    -------
    count, merged : int
        Pixels, and points on them.
    """
    count = merged = 0
    for i in range(points.shape[0]):
        x, y, z = moved(T_camera_ct, points[i], 1.0)
        nx, ny, nz = moved(T_camera_ct, normals[i], 0.0)
        along = nx * x + ny * y + nz * z
        if z < 1.0 or along * along > _RIM_COS * _RIM_COS * (x * x + y * y + z * z):
            continue
        du, dv = nx - nz * x / z, ny - nz * y / z
        long = np.sqrt(du * du + dv * dv)
        if long < 1e-6:
            continue
        u, v = projected(x, y, z, camera)
        col, row = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
        if not (_REACH_PX <= col < owner.shape[1] - _LANES and _REACH_PX <= row < owner.shape[0] - _REACH_PX):
            continue
        k = owner[row, col] - stamp
        if k < 0:
            k = count
            if k == at_px.shape[0]:
                break
            owner[row, col] = stamp + k
            at_px[k, 0], at_px[k, 1] = col, row
            out_of_bone[k, 0] = out_of_bone[k, 1] = 0
            count += 1
        out_of_bone[k, 0] += du / long
        out_of_bone[k, 1] += dv / long
        merged += 1
    return count, merged


@njit(cache=True, nogil=True, fastmath=True)
def find_gradients(picture, usable, half, gradient_x, gradient_y):
    """Central differences, bounded to 1: g / (|g| + half).

    Parameters
    ----------
    picture : ndarray of float32, shape (rows, cols)
    usable : ndarray of float32, of the same shape
        1 where there are gradients, 0 elsewhere.
    half : float
        Gradient that counts half, per pixel.
    gradient_x, gradient_y : ndarray of float32, of the same shape
        Are overwritten but for their border.
    """
    one = np.uint64(1)  # an index that is never negative needs no check
    for r in range(one, np.uint64(picture.shape[0] - 1)):
        for c in range(one, np.uint64(picture.shape[1] - 1)):
            gx = np.float32(0.5) * (picture[r, c + one] - picture[r, c - one])
            gy = np.float32(0.5) * (picture[r + one, c] - picture[r - one, c])
            weight = usable[r, c] / (np.sqrt(gx * gx + gy * gy) + half)
            gradient_x[r, c], gradient_y[r, c] = gx * weight, gy * weight


@njit(cache=True, nogil=True, fastmath=True)
def score_shifts(at_px, out_of_bone, count, merged, width, gradient_x, gradient_y, scores):
    """How far attenuation falls along the normals, for copies shifted by whole pixels.

    Parameters
    ----------
    at_px : ndarray of int32, shape (m, 2)
        All of whose copies lie in the picture.
    out_of_bone : ndarray of float32, shape (m, 2)
    count, merged : int
        Pixels that are used of them, and points on these.
    width : int
        Of the picture, in pixels.
    gradient_x, gradient_y : ndarray of float32, shape (rows * cols,)
    scores : ndarray of float32, shape (15 * 16,)
        By shift of row and column, and one column more, which fills a register: the mean over points, -1 to 1. Is
        overwritten.
    """
    scores[:] = 0
    stride, lanes = np.uint64(width), np.uint64(_LANES)
    for i in range(count):
        nx, ny = out_of_bone[i, 0], out_of_bone[i, 1]
        first = np.uint64(at_px[i, 1] - _REACH_PX) * stride + np.uint64(at_px[i, 0] - _REACH_PX)
        for r in range(np.uint64(_SHIFTS)):
            at, to = first + r * stride, r * lanes
            for c in range(lanes):
                scores[to + c] -= gradient_x[at + c] * nx + gradient_y[at + c] * ny
    scores /= np.float32(max(merged, 1))


class BoneEdgeWitness:
    """Holds the edges of the registered bones against the picture's.

    Parameters
    ----------
    bones : sequence of Structure
    camera : Camera
    target_ct : ndarray, shape (3,)
    depth_mm : float
        Of the target from the source, as expected.

    Attributes
    ----------
    scores : ndarray of float32, shape (15, 15)
        By shift of row and column, summed over frames.
    lead : float
        By how much the best copy beside is better than the best in place, in standard deviations of `scores`.
    """

    def __init__(self, bones: Sequence[Structure], camera: Camera, target_ct: Float, depth_mm: float) -> None:
        surfaces = [surface_points(bone) for bone in bones]
        points = np.concatenate([np.zeros((0, 3)), *surfaces])
        normals = np.concatenate([np.zeros((0, 3)), *map(_normals, bones, surfaces)])
        # In no order, so that where there are too many all parts of all bones are left.
        chosen = np.random.default_rng(0).permutation(len(points))[: LIMITS.most_points * LIMITS.groups]
        self._groups = [
            (points[part].astype(np.float32), normals[part].astype(np.float32))
            for part in np.array_split(chosen, LIMITS.groups)
        ]
        self._turn = 0
        self._target_ct = np.append(target_ct, 1.0)
        longest = max(camera.rows, camera.cols)

        def pixel_mm(side: int) -> float:
            return depth_mm * longest / (camera.focal_px * side)

        self.side = min(_SIDES, key=lambda side: abs(np.log(pixel_mm(side) / LIMITS.pixel_mm)))
        small = camera.scaled(self.side / longest)
        self._camera, self._focal_px = intrinsics(small), small.focal_px
        shape = (small.rows, small.cols)
        self._gradient_x, self._gradient_y = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._usable, self._inside = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
        self._owner, self._stamp = np.full(shape, -1, np.int64), 0
        self._margin = np.ones((2 * LIMITS.margin_px + 1,) * 2, np.uint8)
        self._at_px = np.zeros((LIMITS.most_rim, 2), np.int32)
        self._out_of_bone = np.zeros((LIMITS.most_rim, 2), np.float32)
        self._edges, self._around = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._of_frame = np.zeros((_SHIFTS, _LANES), np.float32)
        self._width = shape[1]
        steps = np.arange(-_REACH_PX, _REACH_PX + 1)
        away_px = np.hypot(steps[:, None], steps)
        self._in_place, self._beside = away_px <= LIMITS.near_px, away_px >= LIMITS.far_px
        self._away_px = away_px[self._beside]
        self.scores, self._before = np.zeros((_SHIFTS, _SHIFTS), np.float32), np.zeros((_SHIFTS, _SHIFTS), np.float32)
        self._variance = 0.0  # of the noise of a frame's scores
        self.lead = 0.0
        self._summed = 0  # frames
        self._T_camera_ct = np.eye(4)
        self._field: NDArray[np.bool_] | None = None

    def forget(self) -> None:
        """Another pose follows, or none."""
        self.scores[:] = 0
        self.lead = 0.0
        self._summed = 0

    def look(self, pyramid: dict[int, Float32], field: NDArray[np.bool_], T_camera_ct: Float) -> Verdict:
        """What the picture says of the pose.

        Parameters
        ----------
        pyramid : dict
            Attenuation by the longer side of the picture.
        field : ndarray of bool
            Of the size of the pyramid's largest picture.
        T_camera_ct : ndarray, shape (4, 4)
        """
        if not len(self._groups[0][0]):
            return NO_BONES
        picture = pyramid[self.side]
        if field is not self._field:
            self._note_field(field)
        pixel_mm = float(T_camera_ct[2] @ self._target_ct) / self._focal_px
        count, merged = self._project(T_camera_ct)
        if count < LIMITS.least_rim:
            return FEW_EDGES
        self._find_gradients(picture, self._at_px[:count])
        score_shifts(
            self._at_px, self._out_of_bone, count, merged, self._width, self._gradient_x.ravel(),
            self._gradient_y.ravel(), self._of_frame.ravel(),
        )  # fmt: skip
        self._sum_up(self._of_frame[:, :_SHIFTS])
        return self._judged(pixel_mm)

    def _sum_up(self, of_frame: Float32) -> None:
        """Adds a frame's scores to those before; how they change from frame to frame is their noise."""
        if self._summed:
            np.subtract(of_frame, self._before, out=self._before)
            variance = float(self._before.var()) / 2
            self._variance += (variance - self._variance) / min(self._summed, LIMITS.noise_frames)
        np.copyto(self._before, of_frame)
        self.scores *= np.float32(LIMITS.forgets)
        self.scores += np.float32(1 - LIMITS.forgets) * of_frame
        self._summed += 1

    def _project(self, T_camera_ct: Float) -> tuple[int, int]:
        self._T_camera_ct[:] = T_camera_ct  # a copy: the kernel is compiled for arrays of one kind
        self._stamp += LIMITS.most_rim
        self._turn = (self._turn + 1) % LIMITS.groups
        points, normals = self._groups[self._turn]
        return project_rims(
            points, normals, self._T_camera_ct, self._camera, self._owner, self._stamp, self._at_px, self._out_of_bone
        )

    def _find_gradients(self, picture: Float32, at_px: NDArray[np.int32]) -> None:
        """Finds the gradients about the pixels that are used, and not in all of the picture."""
        # Copies, the last lane, a gradient's neighbour, and what the filters see at the border of what they are given.
        reach = _REACH_PX + 2 + _SUPPORT_PX
        (left, top), (right, bottom) = at_px.min(0) - reach, at_px.max(0) + reach + 1
        box = slice(max(top, 0), bottom), slice(max(left, 0), right)
        edges, around = self._edges[box], self._around[box]
        cv2.GaussianBlur(picture[box], (0, 0), LIMITS.edge_px, dst=edges)
        cv2.boxFilter(picture[box], -1, (LIMITS.around_px, LIMITS.around_px), dst=around)
        np.subtract(edges, around, out=edges)
        half = np.float32(LIMITS.half_per_px)
        find_gradients(edges, self._usable[box], half, self._gradient_x[box], self._gradient_y[box])

    def _note_field(self, field: NDArray[np.bool_]) -> None:
        """The field of view has changed, which it does twice a second at the most."""
        cv2.resize(field.view(np.uint8), self._inside.shape[::-1], dst=self._inside, interpolation=cv2.INTER_NEAREST)
        cv2.erode(self._inside, self._margin, dst=self._inside, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        np.copyto(self._usable, self._inside)
        self._field = field

    def _judged(self, pixel_mm: float) -> Verdict:
        beside = self.scores[self._beside]
        best = int(beside.argmax())
        better = float(beside[best] - self.scores[self._in_place].max())
        self.lead = better / max(float(self.scores.std()), 1e-9)
        if self._summed < LIMITS.least_summed:
            return BEGUN
        noise = float(np.sqrt(self._variance)) * _NOISE_LEFT
        if 0 <= self.lead <= LIMITS.lead or 0 < better < LIMITS.least_sigmas * noise:
            return NO_CONTRAST
        weight = min(max(self.lead, -1.0), LIMITS.most_lead) - LIMITS.lead
        if self.lead < 0:
            return Verdict("agrees", "agrees", weight)
        return Verdict("disagrees", "edges_beside", weight, float(self._away_px[best]) * pixel_mm)


def _normals(bone: Structure, points: Float) -> Float:
    out = np.empty((len(points), 4))
    bone.distances(points, out)
    return out[:, 1:]
