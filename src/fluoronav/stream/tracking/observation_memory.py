"""Observations of an instrument at rest, kept while the C-arm turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.geometry import Camera
from fluoronav.stream.tracking.triangulation import ImageObservation, TipEstimate, triangulate


@dataclass(frozen=True)
class MemoryLimits:
    """Which observations are kept and combined; all chosen on simulated sweeps of the C-arm."""

    max_age_ns: int = 30_000_000_000
    min_angle_deg: float = 20.0  # between the beams of two observations that are combined
    bin_deg: float = 10.0  # one observation is kept for each bin of the beam's direction
    max_kept: int = 4  # beside the newest
    same_view_deg: float = 1.0  # the C-arm stands still
    # At rest: for so many frames the tip stays this near to where it was when the view began.
    rest_sigmas: float = 4.0
    rest_px: float = 2.0
    rest_frames: int = 5
    max_residual: float = 2.5  # root mean squared, in sigmas: above it the views show the instrument in two places


LIMITS = MemoryLimits()


@dataclass
class _Resting:
    since: ImageObservation
    frames: int


class ObservationMemory:
    """Places instruments that were seen from two sides without moving.

    Parameters
    ----------
    camera : Camera
    """

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._kept: dict[str, list[tuple[int, ImageObservation]]] = {}
        self._resting: dict[str, _Resting] = {}

    def place(self, t_acq: int, name: str, now: ImageObservation) -> TipEstimate | None:
        """Takes an observation; returns the tip in the patient, or None while it is unknown.

        Parameters
        ----------
        t_acq : int
            ns.
        name : str
            Identifies the instrument in all views.
        now : ImageObservation
        """
        kept = [(t, o) for t, o in self._kept.get(name, []) if 0 <= t_acq - t < LIMITS.max_age_ns]
        rest = self._resting.get(name)
        if rest is None or _angle_deg(rest.since, now) > LIMITS.same_view_deg:
            rest = self._resting[name] = _Resting(now, 1)
        elif np.linalg.norm(rest.since.tip_px - now.tip_px) > max(LIMITS.rest_sigmas * now.sigma_px, LIMITS.rest_px):
            # It moves, so other views show it in another place.
            rest = self._resting[name] = _Resting(now, 1)
            kept = []
        else:
            rest.frames += 1
        across = [o for _, o in kept if _angle_deg(o, now) >= LIMITS.min_angle_deg]
        found = triangulate(self._camera, [now, *across]) if across else None
        if found is not None and found.residual > LIMITS.max_residual:
            found, kept = None, []
        if rest.frames >= LIMITS.rest_frames:
            kept = [(t, o) for t, o in kept if _angle_deg(o, now) >= LIMITS.bin_deg][-LIMITS.max_kept :] + [
                (t_acq, now)
            ]
        self._kept[name] = kept
        return found


def _angle_deg(a: ImageObservation, b: ImageObservation) -> float:
    """Angle between two beams."""
    return float(np.rad2deg(np.arccos(np.clip(a.T_camera_ct[2, :3] @ b.T_camera_ct[2, :3], -1, 1))))
