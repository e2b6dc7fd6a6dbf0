"""Centre and width of a shaft's shadow in profiles across it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.kernels import njit


@dataclass(frozen=True)
class ProfileLimits:
    """When a profile shows a shadow; all chosen on simulated exposures at 12 to 160 photons a pixel."""

    averaged: int = 5  # neighbouring profiles averaged to one measurement; odd
    flank_px: int = 6  # at each end of a profile, beside the shadow
    min_depth: float = 0.12  # attenuation
    min_depth_of_median: float = 0.4  # fraction of the median depth of all profiles


PROFILES = ProfileLimits()
# Kernels take scalars.
_AVERAGED, _FLANK_PX = PROFILES.averaged, PROFILES.flank_px
_MIN_DEPTH, _MIN_DEPTH_OF_MEDIAN = PROFILES.min_depth, PROFILES.min_depth_of_median
_HALF_AVERAGED = _AVERAGED // 2


@njit(cache=True, nogil=True)
def shadow_centres(profiles, half_px):
    """The shadow's offset from the middle of each profile, its width, and whether there is one.

    Parameters
    ----------
    profiles : ndarray of float32, shape (n, 2 half_px + 1)
        Attenuation across a shaft.
    half_px : int

    Returns
    -------
    offset, width : ndarray, shape (n,)
        Pixels.
    valid : ndarray of bool, shape (n,)
    """
    depth = np.empty_like(profiles)
    _depths(profiles, depth)
    rows, n = depth.shape
    peak, at = np.zeros(rows, np.float32), np.zeros(rows, np.int64)
    for k in range(rows):
        at[k] = _FLANK_PX + depth[k, _FLANK_PX : n - _FLANK_PX].argmax()
        peak[k] = depth[k, at[k]]
    valid, offset, width = np.zeros(rows, np.bool_), np.zeros(rows), np.ones(rows)
    _widths_at_half_depth(depth, peak, at, -half_px, valid, offset, width)
    return offset, width, valid


@njit(cache=True, nogil=True)
def _depths(profiles, depth):
    """Attenuation above that of the brighter flank, averaged over neighbouring profiles."""
    rows, n = profiles.shape
    for k in range(rows):
        for j in range(n):
            total = 0.0
            for i in range(-_HALF_AVERAGED, _HALF_AVERAGED + 1):
                total += profiles[min(max(k + i, 0), rows - 1), j]
            depth[k, j] = total / _AVERAGED
        flank = min(np.median(depth[k, :_FLANK_PX]), np.median(depth[k, n - _FLANK_PX :]))
        for j in range(n):
            depth[k, j] = max(depth[k, j] - flank, 0)


@njit(cache=True, nogil=True)
def _widths_at_half_depth(depth, peak, at, first, valid, offset, width):
    """Writes each shadow's centre and width at half depth; valid where the shadow ends within the profile."""
    rows, n = depth.shape
    min_peak = max(_MIN_DEPTH, _MIN_DEPTH_OF_MEDIAN * np.median(peak))
    for k in range(rows):
        if peak[k] <= min_peak:
            continue
        level = 0.5 * peak[k]
        left = right = at[k]
        while left > 0 and depth[k, left - 1] > level:
            left -= 1
        while right < n - 1 and depth[k, right + 1] > level:
            right += 1
        # Interpolated to where the profile crosses half depth.
        a, b = float(left), float(right)
        if left > 0:
            a -= (depth[k, left] - level) / max(depth[k, left] - depth[k, left - 1], 1e-9)
        if right < n - 1:
            b += (depth[k, right] - level) / max(depth[k, right] - depth[k, right + 1], 1e-9)
        width[k] = b - a
        offset[k] = (a + b) / 2 + first
        valid[k] = left > 1 and right < n - 2
