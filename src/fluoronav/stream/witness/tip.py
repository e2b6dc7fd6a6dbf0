"""Whether the shadow of a wire ends where its tip is projected: a profile along the shaft, across its tip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Tool
from fluoronav.kernels import njit
from fluoronav.stream.witness.evidence import Verdict
from fluoronav.stream.witness.projection import moved, projected

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TipLimits:
    """When a profile along a shaft shows where its shadow ends; lengths are across the ray at the tip's depth.

    Attributes
    ----------
    beyond_mm, inside_mm : float
        Of the profile, from the projected tip on. Chosen: the ends that are told apart, and 3 and 6 mm.
    apart_mm : float
        Between two samples; chosen: about a pixel.
    far_mm : float
        Ends are looked for up to here; chosen.
    near_mm, beside_mm : float
        An end this near is the tip's, and from this far on it is not. Chosen: the errors of a right tool and pose
        together stay below the first in 1 of 10,000, and half of what is asked to be found (3 mm) beyond it.
    ramp_mm, ramp_share, full_mm, full_share : float
        A wire's shadow has these shares of the shaft's depth so far from its end: a trocar point is thin. Fitted on
        60 frames of the demo's sequence.
    lowest, highest : float
        Shares are bounded to this, so that what crosses the shaft counts little; chosen.
    margin : float
        By how much an end elsewhere must fit better than one at the tip, as a sum of squared shares, and the
        reverse to agree. Right tools reached -0.05 in 480 profiles of the demo's sequence.
    dense : float
        As `ShaftLimits.dense`.
    """

    beyond_mm: float = 8.0
    inside_mm: float = 12.0
    apart_mm: float = 0.5
    far_mm: float = 6.0
    near_mm: float = 1.5
    beside_mm: float = 2.5
    ramp_mm: float = 1.5
    ramp_share: float = 0.55
    full_mm: float = 8.0
    full_share: float = 0.85
    lowest: float = -0.5
    highest: float = 1.3
    margin: float = 0.3
    dense: float = 6.0


LIMITS = TipLimits()
_ALONG_MM = np.arange(-LIMITS.beyond_mm, LIMITS.inside_mm + LIMITS.apart_mm / 2, LIMITS.apart_mm)
_ENDS_MM = np.arange(-LIMITS.far_mm, LIMITS.far_mm + LIMITS.apart_mm / 2, LIMITS.apart_mm)
# Shares of the shaft's depth that a wire has whose shadow ends at each place, shape (ends, stations).
_SHARES = np.interp(
    _ALONG_MM - _ENDS_MM[:, None],
    [0, LIMITS.ramp_mm, LIMITS.full_mm],
    [0, LIMITS.ramp_share, LIMITS.full_share],
)
_NEAR = np.abs(_ENDS_MM) <= LIMITS.near_mm
_BESIDE = np.abs(_ENDS_MM) >= LIMITS.beside_mm
# Kernels take scalars.
_BEYOND_MM, _APART_MM, _DENSE = LIMITS.beyond_mm, LIMITS.apart_mm, LIMITS.dense

NO_CONTRAST = Verdict("cannot_say", "no_contrast")


@njit(cache=True, nogil=True)
def sample_along(picture, field, T_camera_ct, tip_ct, axis_ct, length_mm, step_mm, camera, offset, core, flank, depths):
    """Depth of a shaft's shadow over the mean of its flanks, from beyond the tip to inside the shaft.

    Parameters
    ----------
    picture : ndarray of float32, shape (rows, cols)
    field : ndarray of bool, of the same shape
    T_camera_ct : ndarray, shape (4, 4)
    tip_ct, axis_ct : ndarray, shape (3,)
        LPS mm; the axis points from the tail to the tip.
    length_mm, step_mm : float
        Of the shaft; between samples across it, at its depth.
    camera : ndarray, shape (17,)
        Of the picture; from :func:`.projection.intrinsics`.
    offset, core, flank : int
        Where the shadow lies beside the axis, half its width, and the width of a flank, in samples.
    depths : ndarray, shape (stations,)
        Attenuation; is filled.

    Returns
    -------
    bool
        Whether all stations are in view, with no metal beside them.
    """
    rows, cols = picture.shape
    x, y, z = moved(T_camera_ct, tip_ct, 1.0)
    ax, ay, az = moved(T_camera_ct, axis_ct, 0.0)
    if z < 1.0 or z - az < 1.0:
        return False
    u, v = projected(x, y, z, camera)
    u1, v1 = projected(x - ax, y - ay, z - az, camera)
    du, dv = u1 - u, v1 - v
    px = camera[0] / z  # pixels of a millimetre
    long = np.sqrt(du * du + dv * dv)
    if long * length_mm < (_APART_MM * (depths.shape[0] - 1) - _BEYOND_MM) * px:
        return False  # seen end on
    du, dv = du / long, dv / long
    across = step_mm * px
    reach = core + 1 + flank
    for k in range(depths.shape[0]):
        a = (_APART_MM * k - _BEYOND_MM) * px
        inner, outer, total = 0.0, 0.0, 0.0
        for j in range(-reach, reach + 1):
            c, r = u + a * du - (j + offset) * across * dv, v + a * dv + (j + offset) * across * du
            if not (0 <= c < cols - 1 and 0 <= r < rows - 1):
                return False
            ci, ri = int(c), int(r)
            if not field[ri, ci]:
                return False
            fc, fr = c - ci, r - ri
            value = (1 - fr) * ((1 - fc) * picture[ri, ci] + fc * picture[ri, ci + 1]) + fr * (
                (1 - fc) * picture[ri + 1, ci] + fc * picture[ri + 1, ci + 1]
            )
            total += value
            if abs(j) <= core:
                inner += value
            elif abs(j) >= core + 2:
                outer += value
        if total > _DENSE * (2 * reach + 1):
            return False
        depths[k] = inner / (2 * core + 1) - outer / (2 * flank)
    return True


class TipWitness:
    """Looks where the shadow of one wire ends; tools with a profile of their own are not asked.

    Parameters
    ----------
    tool : Tool
    camera : ndarray, shape (17,)
        Of the picture; from :func:`.projection.intrinsics`.
    step_mm : float
    core, flank : int
        As :func:`sample_along` has them.
    """

    def __init__(self, tool: Tool, camera: Float, step_mm: float, core: int, flank: int) -> None:
        self._is_wire, self._length_mm = not tool.profile, tool.length_mm
        self._camera, self._step_mm, self._core, self._flank = camera, step_mm, core, flank
        self._depths = np.zeros(len(_ALONG_MM))
        self._misfits = np.zeros(_SHARES.shape)

    def look(
        self, picture: Float32, field: NDArray[np.bool_], T_camera_ct: Float, tip_ct: Float, axis_ct: Float,
        offset: int, depth: float,
    ) -> Verdict | None:  # fmt: skip
        """What the picture says of the tip of a shaft that lies on its shadow; None where it shows no tip.

        Parameters
        ----------
        picture, field, T_camera_ct, tip_ct, axis_ct
            As :meth:`.shaft.ShaftWitness.look` has them; contiguous.
        offset : int
            Where the shadow lies beside the axis, in samples.
        depth : float
            Of the shaft's shadow, attenuation.
        """
        if not self._is_wire or not sample_along(
            picture, field, T_camera_ct, tip_ct, axis_ct, self._length_mm, self._step_mm, self._camera, offset,
            self._core, self._flank, self._depths,
        ):  # fmt: skip
            return None
        self._depths /= depth
        np.clip(self._depths, LIMITS.lowest, LIMITS.highest, out=self._depths)
        np.subtract(self._depths, _SHARES, out=self._misfits)
        misfit = np.einsum("ij,ij->i", self._misfits, self._misfits)
        better = float(misfit[_NEAR].min() - misfit[_BESIDE].min())
        if better > LIMITS.margin:
            return Verdict("disagrees", "shadow_ends_elsewhere", 1.0, abs(float(_ENDS_MM[misfit.argmin()])))
        return NO_CONTRAST if better > -LIMITS.margin else None
