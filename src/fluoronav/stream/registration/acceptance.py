"""That a person has accepted a registration, and which one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.registration.motion import change_between

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AcceptanceLimits:
    """When a registration that is found again is the one that was accepted.

    Attributes
    ----------
    turn_deg, shift_mm : float
        Chosen: the next vertebra is 20 mm away.
    """

    turn_deg: float = 3.0
    shift_mm: float = 5.0


LIMITS = AcceptanceLimits()


class Acceptance:
    """Whether the registration at hand is accepted.

    Attributes
    ----------
    given : bool
    """

    def __init__(self) -> None:
        self.given = False
        self._T_camera_ct: Float | None = None  # accepted, and not at hand now

    def give(self) -> None:
        """A person accepts the registration at hand."""
        self.given, self._T_camera_ct = True, None

    def restore(self, T_camera_ct: Float) -> None:
        """A registration was accepted before a restart."""
        self._T_camera_ct = np.asarray(T_camera_ct, np.float64)

    def lose(self, T_camera_ct: Float | None) -> None:
        """The registration at hand is lost; where it was is remembered if it was accepted."""
        if self.given and T_camera_ct is not None:
            self._T_camera_ct = T_camera_ct
        self.given = False

    def withdraw(self) -> None:
        """The registration at hand is another than the one that was accepted."""
        self.given = False

    def forget(self) -> None:
        """Nothing is accepted any more."""
        self.given, self._T_camera_ct = False, None

    def found(self, T_camera_ct: Float, centre_ct: Float) -> None:
        """A registration is tracking: it is accepted if one was accepted at the same place."""
        if self._T_camera_ct is None:
            return
        shift_mm, turn_deg = change_between(self._T_camera_ct, T_camera_ct, centre_ct)
        self.given = bool(np.linalg.norm(shift_mm) < LIMITS.shift_mm and turn_deg < LIMITS.turn_deg)
        self._T_camera_ct = None
