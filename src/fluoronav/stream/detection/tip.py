"""Where an instrument's shadow begins along its axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit
from fluoronav.stream.detection.axis_fit import fit_line
from fluoronav.stream.detection.profiles import attenuation_profiles

Float, Float32 = NDArray[np.float64], NDArray[np.float32]


@dataclass(frozen=True)
class TipSearch:
    """The profile along the axis, and what is fitted to it; all chosen on simulated exposures."""

    profile_first_px: float = -40.0  # the profile's beginning, from the first guess along the axis
    profile_last_px: float = 24.0
    tip_first_px: float = -30.0  # where the tip is searched
    tip_last_px: float = 17.5
    tip_step_px: float = 0.5
    point_lengths_px: tuple[float, ...] = (1.0, 3.0, 6.0, 10.0, 15.0, 21.0, 28.0)  # of a conical or bevelled point
    min_step: float = 0.1  # attenuation of the shaft
    min_step_sigmas: float = 1.5  # the same, of the fit's residual
    min_sigma_px: float = 0.5  # of a tip found without noise: half a step of the search
    lost_sigma_px: float = 8.0  # of the first guess, kept where the tip is lost in the noise


TIP = TipSearch()
_ALONG_PX = np.arange(TIP.profile_first_px, TIP.profile_last_px + 1)
_TIPS_PX = np.arange(TIP.tip_first_px, TIP.tip_last_px + TIP.tip_step_px, TIP.tip_step_px)
_POINT_LENGTHS_PX = np.array(TIP.point_lengths_px)
# Kernels take scalars.
_MIN_STEP, _MIN_STEP_SIGMAS = TIP.min_step, TIP.min_step_sigmas
_MIN_SIGMA_PX, _LOST_SIGMA_PX = TIP.min_sigma_px, TIP.lost_sigma_px


def locate_tip(
    counts: NDArray, at_px: Float, axis: Float, width_px: float, dark: float, inverse: bool
) -> tuple[float, float]:
    """The tip along the axis.

    Parameters
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
    at_px, axis : ndarray, shape (2,)
        First guess, and the unit vector from tail to tip.
    width_px : float
        Of the shaft's shadow.
    dark : float
        Counts without X-rays.
    inverse : bool
        Dark means more X-rays.

    Returns
    -------
    moved_px, sigma_px : float
        From the first guess along the axis to the tip, and its error (1 sigma); 0 where the tip is lost in the noise.
    """
    normal = np.array([-axis[1], axis[0]])
    points = at_px + _ALONG_PX[:, None] * axis

    def five_lines(first: float, step: float) -> Float32:
        return attenuation_profiles(counts, points + first * normal, step * normal, 5, dark, inverse)

    core, flank = min(max(width_px / 11, 0.5), 1.5), width_px / 2 + 2.5
    profile = _above_both_flanks(five_lines(-core, core / 2), five_lines(-flank, -1.0), five_lines(flank, 1.0))
    return _fit_step(profile, _ALONG_PX, _SHAPES, _TIPS_PX, _POINT_LENGTHS_PX)


@njit(cache=True, nogil=True)
def _above_both_flanks(core, left, right):
    """Mean attenuation of the core above that of the brighter flank."""
    out = np.empty(len(core))
    for k in range(len(core)):
        out[k] = core[k].mean() - min(left[k].mean(), right[k].mean())
    return out


@njit(cache=True, nogil=True)
def _fit_step(profile, along, shapes, tips, point_lengths):
    """Tip and its error of the best of all tips and lengths of point, by least squares."""
    centred = profile - profile.mean()
    best, most = 0, -np.inf
    for k in range(len(shapes)):
        explained = np.sum(shapes[k] * centred)
        if explained > most:
            best, most = k, explained
    tip, point_length = tips[best // len(point_lengths)], point_lengths[best % len(point_lengths)]
    shape = np.minimum(np.maximum((tip - along) / point_length, 0.0), 1.0)
    height, base = fit_line(shape, profile)
    noise = np.std(profile - height * shape - base)
    if height < max(_MIN_STEP, _MIN_STEP_SIGMAS * noise):
        return 0.0, _LOST_SIGMA_PX
    # The shadow of a slender point sinks into the noise before it ends.
    return tip, np.hypot(_MIN_SIGMA_PX, point_length * noise / height)


def _shapes() -> Float:
    """A profile for each tip and length of point, without its mean and of unit norm, shape (n, len(_ALONG_PX))."""
    shapes = np.clip((_TIPS_PX[:, None, None] - _ALONG_PX) / _POINT_LENGTHS_PX[:, None], 0, 1)
    shapes = shapes.reshape(-1, len(_ALONG_PX))
    shapes -= shapes.mean(1, keepdims=True)
    return shapes / np.linalg.norm(shapes, axis=1, keepdims=True)


_SHAPES = _shapes()
