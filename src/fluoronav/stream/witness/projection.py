"""The camera's projection for kernels, which cannot call :meth:`fluoronav.geometry.Camera.project`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.kernels import njit

Float = NDArray[np.float64]

# fx, skew, cx, fy, cy, and twelve coefficients of distortion.
_INTRINSICS = 17


def intrinsics(camera: Camera) -> Float:
    """What `projected` needs of a camera, shape (17,): fx, skew, cx, fy, cy, and OpenCV's k1 k2 p1 p2 k3 ... s4."""
    out = np.zeros(_INTRINSICS)
    out[:5] = camera.K[0, 0], camera.K[0, 1], camera.K[0, 2], camera.K[1, 1], camera.K[1, 2]
    if camera.distortion is not None:
        k = np.asarray(camera.distortion)[: _INTRINSICS - 5]
        out[5 : 5 + len(k)] = k
    return out


@njit(cache=True, nogil=True)
def moved(T, p, weight):
    """A point (weight 1) or a direction (weight 0), shape (3,), in another frame, as three numbers."""
    return (
        T[0, 0] * p[0] + T[0, 1] * p[1] + T[0, 2] * p[2] + weight * T[0, 3],
        T[1, 0] * p[0] + T[1, 1] * p[1] + T[1, 2] * p[2] + weight * T[1, 3],
        T[2, 0] * p[0] + T[2, 1] * p[1] + T[2, 2] * p[2] + weight * T[2, 3],
    )


@njit(cache=True, nogil=True)
def projected(px, py, pz, c):
    """Column and row of a point in front of the source, as :meth:`fluoronav.geometry.Camera.project` has them.

    Parameters
    ----------
    px, py, pz : float
        Camera frame, mm; pz > 0.
    c : ndarray, shape (17,)
        From :func:`intrinsics`.
    """
    x, y = px / pz, py / pz
    r2 = x * x + y * y
    radial = (1 + r2 * (c[5] + r2 * (c[6] + r2 * c[9]))) / (1 + r2 * (c[10] + r2 * (c[11] + r2 * c[12])))
    u = x * radial + 2 * c[7] * x * y + c[8] * (r2 + 2 * x * x) + c[13] * r2 + c[14] * r2 * r2
    v = y * radial + c[7] * (r2 + 2 * y * y) + 2 * c[8] * x * y + c[15] * r2 + c[16] * r2 * r2
    return c[0] * u + c[1] * v + c[2], c[3] * v + c[4]
