"""Whether projected bone edges lie on edges of the picture: against shifted copies of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """When projected edges lie on edges.

    Attributes
    ----------
    most_points : int
        Of the bones' surfaces; chosen for 0.1 ms a frame.
    rim_cos : float
        A surface within this of the ray's direction is an edge of its shadow; chosen: 7 degrees.
    most_rim, least_rim : int
        Points of edges that are used, and that a verdict needs; chosen.
    pixel_mm : float
        Size of a pixel at the target in the picture that is used, as near as the pyramid has it; chosen: an edge of
        bone is 1 to 2 mm wide.
    half_mm : float
        Gradient of attenuation at which an edge counts half, per mm; chosen: so that metal counts as bone does.
    reach_mm, most_reach_px : float, int
        Copies are shifted by so much to each side; chosen.
    forgets : float
        Weight of the frames before in the sum; chosen: half after two frames.
    least_contrast : float
        Score of the best copy over the mean of the farthest ones, 0 to 1; fitted (`bench witness`).
    near_mm : float
        A best copy this near agrees; fitted (`bench witness`).
    lead : float
        Part of the contrast by which a copy farther away must be better; fitted (`bench witness`).
    margin_px : int
        Beside the field's edge, where a shadow's edge may be the collimator's; chosen.
    """

    most_points: int = 24_000
    rim_cos: float = 0.12
    most_rim: int = 1500
    least_rim: int = 200
    pixel_mm: float = 0.7
    half_mm: float = 0.05
    reach_mm: float = 6.0
    most_reach_px: int = 12
    forgets: float = 0.6
    least_contrast: float = 0.05
    near_mm: float = 1.5
    lead: float = 0.15
    margin_px: int = 3


LIMITS = EdgeLimits()
_RIM_COS, _MARGIN_PX = LIMITS.rim_cos, LIMITS.margin_px
_SIDES = (512, 256, 128)  # of the pyramid

NO_BONES = Verdict("cannot_say", "no_bones")
FEW_EDGES = Verdict("cannot_say", "few_edges")
NO_CONTRAST = Verdict("cannot_say", "no_contrast")
AGREES = Verdict("agrees", "agrees")


@njit(cache=True, nogil=True)
def project_rims(points, normals, T_camera_ct, camera, at_px, out_of_bone):
    """Points of a surface at which rays touch it, in the picture.

    Parameters
    ----------
    points, normals : ndarray of float32, shape (n, 3)
        LPS mm; normals point out of the bone.
    T_camera_ct : ndarray, shape (4, 4)
    camera : ndarray, shape (17,)
    at_px : ndarray of int32, shape (m, 2)
        Column and row; is filled.
    out_of_bone : ndarray of float32, shape (m, 2)
        Unit vectors in the picture; is filled.

    Returns
    -------
    int
        How many there are.
    """
    count = 0
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
        at_px[count, 0], at_px[count, 1] = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
        out_of_bone[count, 0], out_of_bone[count, 1] = du / long, dv / long
        count += 1
        if count == at_px.shape[0]:
            break
    return count


@njit(cache=True, nogil=True)
def find_usable(field, shrink, usable):
    """Pixels of a smaller picture that lie in the field of view, away from its edge.

    Parameters
    ----------
    field : ndarray of bool, shape (rows, cols)
    shrink : int
        Pixels of `field` along a side of one of `usable`.
    usable : ndarray of bool
        Is overwritten.
    """
    rows, cols = usable.shape
    reach = _MARGIN_PX * shrink
    for r in range(rows):
        for c in range(cols):
            inside = True
            for i in range(-1, 2):
                for j in range(-1, 2):
                    y, x = r * shrink + i * reach, c * shrink + j * reach
                    if not (0 <= y < field.shape[0] and 0 <= x < field.shape[1]) or not field[y, x]:
                        inside = False
            usable[r, c] = inside


@njit(cache=True, nogil=True, fastmath=True)
def find_gradients(picture, usable, half, gradient_x, gradient_y):
    """Central differences, bounded to 1: g / (|g| + half).

    Parameters
    ----------
    picture : ndarray of float32, shape (rows, cols)
    usable : ndarray of bool, of the same shape
        The others have none.
    half : float
        Gradient that counts half, per pixel.
    gradient_x, gradient_y : ndarray of float32, of the same shape
        Are overwritten but for their border.
    """
    rows, cols = picture.shape
    for r in range(1, rows - 1):
        for c in range(1, cols - 1):
            gx = np.float32(0.5) * (picture[r, c + 1] - picture[r, c - 1])
            gy = np.float32(0.5) * (picture[r + 1, c] - picture[r - 1, c])
            weight = np.float32(usable[r, c]) / (np.sqrt(gx * gx + gy * gy) + half)
            gradient_x[r, c], gradient_y[r, c] = gx * weight, gy * weight


@njit(cache=True, nogil=True, fastmath=True)
def score_shifts(at_px, out_of_bone, count, gradient_x, gradient_y, scores):
    """How far attenuation falls along the normals, for copies shifted by whole pixels.

    Parameters
    ----------
    at_px : ndarray of int32, shape (m, 2)
    out_of_bone : ndarray of float32, shape (m, 2)
    count : int
        Points that are used of them.
    gradient_x, gradient_y : ndarray of float32, shape (rows, cols)
    scores : ndarray of float32, shape (2 reach + 1, 2 reach + 1)
        By shift of row and column: the mean over points, -1 to 1. Is overwritten.

    Returns
    -------
    int
        Points all of whose copies lie in the picture.
    """
    rows, cols = gradient_x.shape
    side = scores.shape[0]
    reach = side // 2
    scores[:] = 0
    used = 0
    for i in range(count):
        c0, r0 = at_px[i, 0] - reach, at_px[i, 1] - reach
        if c0 < 0 or r0 < 0 or c0 + side > cols or r0 + side > rows:
            continue
        used += 1
        nx, ny = out_of_bone[i, 0], out_of_bone[i, 1]
        for r in range(side):
            for c in range(side):
                scores[r, c] -= gradient_x[r0 + r, c0 + c] * nx + gradient_y[r0 + r, c0 + c] * ny
    if used:
        scores /= np.float32(used)
    return used


class BoneEdgeWitness:
    """Holds the edges of the registered bones against the picture's.

    Parameters
    ----------
    bones : sequence of Structure
    camera : Camera
    target_ct : ndarray, shape (3,)
    depth_mm : float
        Of the target from the source, as expected.
    """

    def __init__(self, bones: Sequence[Structure], camera: Camera, target_ct: Float, depth_mm: float) -> None:
        surfaces = [surface_points(bone) for bone in bones]
        every = -(-sum(map(len, surfaces)) // LIMITS.most_points) or 1
        self._points = np.concatenate([np.zeros((0, 3)), *(s[::every] for s in surfaces)]).astype(np.float32)
        self._normals = np.concatenate(
            [np.zeros((0, 3)), *(_normals(b, s[::every]) for b, s in zip(bones, surfaces, strict=True))]
        ).astype(np.float32)
        self._target_ct = np.append(target_ct, 1.0)
        longest = max(camera.rows, camera.cols)

        def pixel_mm(side: int) -> float:
            return depth_mm * longest / (camera.focal_px * side)

        self.side = min(_SIDES, key=lambda side: abs(np.log(pixel_mm(side) / LIMITS.pixel_mm)))
        small = camera.scaled(self.side / longest)
        self._camera, self._focal_px = intrinsics(small), small.focal_px
        self._reach = min(int(np.ceil(LIMITS.reach_mm / pixel_mm(self.side))), LIMITS.most_reach_px)
        shape = (small.rows, small.cols)
        self._gradient_x, self._gradient_y = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._usable = np.zeros(shape, bool)
        self._at_px = np.zeros((LIMITS.most_rim, 2), np.int32)
        self._out_of_bone = np.zeros((LIMITS.most_rim, 2), np.float32)
        self._of_frame = np.zeros((2 * self._reach + 1,) * 2, np.float32)
        self.scores = np.zeros_like(self._of_frame)
        self._T_camera_ct = np.eye(4)
        self._field: NDArray[np.bool_] | None = None

    def forget(self) -> None:
        """Another pose follows, or none."""
        self.scores[:] = 0

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
        if not len(self._points):
            return NO_BONES
        picture = pyramid[self.side]
        if field is not self._field:
            find_usable(field, max(field.shape[0] // picture.shape[0], 1), self._usable)
            self._field = field
        pixel_mm = float(T_camera_ct[2] @ self._target_ct) / self._focal_px
        half = np.float32(LIMITS.half_mm * pixel_mm)
        find_gradients(picture, self._usable, half, self._gradient_x, self._gradient_y)
        self._T_camera_ct[:] = T_camera_ct  # a copy: the kernel is compiled for arrays of one kind
        count = project_rims(
            self._points, self._normals, self._T_camera_ct, self._camera, self._at_px, self._out_of_bone
        )
        used = score_shifts(self._at_px, self._out_of_bone, count, self._gradient_x, self._gradient_y, self._of_frame)
        if used < LIMITS.least_rim:
            return FEW_EDGES
        self.scores *= np.float32(LIMITS.forgets)
        self.scores += np.float32(1 - LIMITS.forgets) * self._of_frame
        return self._judged(pixel_mm)

    def _judged(self, pixel_mm: float) -> Verdict:
        scores, reach = self.scores, self._reach
        row, col = divmod(int(scores.argmax()), scores.shape[1])
        far = (scores[0].mean() + scores[-1].mean() + scores[:, 0].mean() + scores[:, -1].mean()) / 4
        contrast = float(scores[row, col] - far)
        if contrast < LIMITS.least_contrast:
            return NO_CONTRAST
        offset_mm = float(np.hypot(row - reach, col - reach)) * pixel_mm
        if offset_mm <= LIMITS.near_mm:
            return AGREES
        if scores[row, col] - scores[reach, reach] < LIMITS.lead * contrast:
            return NO_CONTRAST
        return Verdict("disagrees", "edges_beside", offset_mm)


def _normals(bone: Structure, points: Float) -> Float:
    out = np.empty((len(points), 4))
    bone.distances(points, out)
    return out[:, 1:]
