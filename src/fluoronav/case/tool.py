"""The geometry of an instrument in a case file or a tool file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fluoronav.case.schema import Length, Name, Shaft, Strict
from fluoronav.geometry import frame_along

Float = NDArray[np.float64]

# Distance of the tip from its marker's origin, where they are not the same point. Chosen: a nearer marker would sit on
# the tip.
_NEAREST_TIP_MM, _FARTHEST_TIP_MM = 1.0, 1000.0
_PROFILE_END_MM = 0.5  # tolerance between the profile's end and length_mm
_MOST_RADIUS_MM = 25.0


def check_tip(tip_mm: Sequence[float] | Float) -> None:
    """Raises ValueError where the distance from the marker to the tip cannot be in mm.

    The tip is exactly at the origin where the tracker reports the tip itself. Distances in metres are below 1.
    """
    away = float(np.linalg.norm(tip_mm))
    if 0 < away < _NEAREST_TIP_MM:
        raise ValueError(
            f"tip_mm is {away:.2g} mm from the marker: is it in metres? Give it in mm, or 0, 0, 0 where the tracker "
            "reports the tip itself"
        )
    if not away <= _FARTHEST_TIP_MM:
        raise ValueError(f"tip_mm is more than 1 m from the marker ({away:.4g} mm)")


class Tool(Strict):
    """An instrument as a body of revolution, in the frame that the tracker reports.

    Attributes
    ----------
    tip_mm, axis : tuple
        The tip, and the direction from the tail to the tip. By default the frame has its origin at the tip and z along
        the shaft towards it; `fluoronav calibrate pivot` finds them for any other marker.
    profile : tuple of (s, radius)
        Radius at a distance from the tip, mm; without one the tool is a cylinder with a point.
    """

    id: Name
    kind: Name
    diameter_mm: Shaft = Field(description="of the shaft")
    length_mm: Length
    tip_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    profile: tuple[tuple[float, float], ...] = Field(default=(), max_length=200, description="[mm from tip, radius]")

    @model_validator(mode="after")
    def _possible(self) -> Tool:
        if self.length_mm <= self.diameter_mm:
            raise ValueError(f"length_mm {self.length_mm:g} must be larger than diameter_mm {self.diameter_mm:g}")
        if not 0.9 < np.linalg.norm(self.axis) < 1.1:
            raise ValueError("axis must be a unit vector, from the tail to the tip")
        check_tip(self.tip_mm)
        if self.profile:
            self._possible_profile()
        return self

    def _possible_profile(self) -> None:
        s, r = np.array(self.profile).T
        if s[0] != 0 or len(s) < 2 or (np.diff(s) <= 0).any():
            raise ValueError("profile must begin at 0, have two points or more, and go up in its first column")
        if abs(s[-1] - self.length_mm) > _PROFILE_END_MM:
            raise ValueError(f"profile ends at {s[-1]:g} mm, but length_mm is {self.length_mm:g}")
        if (r < 0).any() or r.max() > _MOST_RADIUS_MM:
            raise ValueError("profile has a radius below 0 or above 25 mm")
        if not r.min() <= self.diameter_mm / 2 <= r.max() + 1e-6:
            raise ValueError(f"profile has radii of {r.min():g} to {r.max():g} mm: none fits diameter_mm")

    def radii_mm(self, along_mm: Float) -> Float:
        """Radius at distances from the tip, shape as given."""
        if self.profile:
            s, r = np.array(self.profile).T
            return np.interp(along_mm, s, r)
        return np.where(along_mm > 0, self.diameter_mm / 2, 0.0)

    def T_tool_tip(self) -> Float:
        """From the tip's frame (origin at the tip, z from the tail to it) to the tool's, shape (4, 4), mm."""
        return frame_along(self.tip_mm, self.axis)
