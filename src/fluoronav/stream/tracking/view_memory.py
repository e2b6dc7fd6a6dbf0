"""Views of an instrument that holds still, remembered while the C-arm turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluoronav.geometry import Camera
from fluoronav.stream.tracking.triangulation import InSpace, Sighting, triangulated

# A sighting is kept for so long, and used from so much farther round; one is kept for each bin of the beam's direction.
_KEPT_NS, _APART_DEG, _BIN_DEG, _MOST = 30_000_000_000, 20.0, 10.0, 4
# At rest: the tip stays within so many sigmas (and pixels) of where it was when this view began, for so many frames.
_REST_SIGMAS, _REST_PX, _REST_FRAMES = 4.0, 2.0, 5
# Views that fit one another worse than this do not show one instrument in one place.
_RESIDUAL = 2.5


@dataclass
class _Resting:
    since: Sighting
    frames: int


class SightingMemory:
    """Places instruments that only pictures show, when they have been seen from two sides without moving.

    Parameters
    ----------
    camera : Camera
    """

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._kept: dict[str, list[tuple[int, Sighting]]] = {}
        self._resting: dict[str, _Resting] = {}

    def place(self, t_acq: int, name: str, now: Sighting) -> InSpace | None:
        """Takes a sighting; returns where the instrument is, or None while that is not known.

        Parameters
        ----------
        t_acq : int
            ns.
        name : str
            What names the instrument from one view to another.
        now : Sighting
        """
        kept = [(t, s) for t, s in self._kept.get(name, []) if 0 <= t_acq - t < _KEPT_NS]
        rest = self._resting.get(name)
        if rest is None or _apart_deg(rest.since, now) > 1.0:
            rest = self._resting[name] = _Resting(now, 1)
        elif np.linalg.norm(rest.since.tip_px - now.tip_px) > max(_REST_SIGMAS * now.sigma_px, _REST_PX):
            # It moves: what was seen from elsewhere shows it in another place.
            rest = self._resting[name] = _Resting(now, 1)
            kept = []
        else:
            rest.frames += 1
        others = [s for _, s in kept if _apart_deg(s, now) >= _APART_DEG]
        found = triangulated(self._camera, [now, *others]) if others else None
        if found is not None and found.residual > _RESIDUAL:
            found, kept = None, []
        if rest.frames >= _REST_FRAMES:
            kept = [(t, s) for t, s in kept if _apart_deg(s, now) >= _BIN_DEG][-_MOST:] + [(t_acq, now)]
        self._kept[name] = kept
        return found


def _apart_deg(a: Sighting, b: Sighting) -> float:
    return float(np.rad2deg(np.arccos(np.clip(a.T_camera_ct[2, :3] @ b.T_camera_ct[2, :3], -1, 1))))
