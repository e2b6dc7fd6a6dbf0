"""What the frame path has delivered lately, for the watchdog to judge: written by one thread, read by another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fluoronav.stream.frame import Alert, FrameRecord, RegistrationResult
from fluoronav.stream.stage import HoldsAlerts, HoldsPose, ObservesTools

# A minute at 60 frames a second is more than anybody asks for.
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class RecentCounts:
    """Frames of some seconds: taken up, of these late; skipped or lost on the way; refused; skipped alone."""

    taken: int
    late: int
    lost: int
    refused: int
    skipped: int


class RecentFrames:
    """When the last frames were taken up or refused, and which of them were late."""

    def __init__(self) -> None:
        self._taken_at, self._missed = np.full(_REMEMBERED, -np.inf), np.zeros(_REMEMBERED, bool)
        self._lost, self._skipped = np.zeros(_REMEMBERED, int), np.zeros(_REMEMBERED, int)
        self._refused_at = np.full(_REMEMBERED, -np.inf)
        self._taken = self._refused = 0

    def taken(self, at_s: float, missed: bool, lost: int, skipped: int = 0) -> None:
        """An overlay has left; so many frames were skipped or lost before it, and of these skipped."""
        k = self._taken % _REMEMBERED
        self._taken_at[k], self._missed[k], self._lost[k] = at_s, missed, lost
        self._skipped[k] = skipped
        self._taken += 1

    def refused(self, at_s: float) -> None:
        """A frame, or what was sent for one, was invalid."""
        self._refused_at[self._refused % _REMEMBERED] = at_s
        self._refused += 1

    def since(self, at_s: float) -> RecentCounts:
        """What has become of the frames since then."""
        recent = self._taken_at > at_s
        return RecentCounts(
            int(np.count_nonzero(recent)),
            int(np.count_nonzero(self._missed & recent)),
            int(self._lost[recent].sum()),
            int(np.count_nonzero(self._refused_at > at_s)),
            int(self._skipped[recent].sum()),
        )


class Standing:
    """What the stages say after each frame and each command: written by the frame path, read by the watchdog.

    All values are replaced, never changed.

    Attributes
    ----------
    status : str
        Of the last overlay.
    status_reason : str
        Why it is not tracking, in words.
    since : float
        When the registration stopped being `tracking`, or when the first frame came; by a clock that never steps.
    engine_fault : str
        As of the last frame.
    tool_faults : dict
        By tool, as of the last frame.
    tools_rejected : dict
        The tracker's samples that were not believed, by reason.
    looks : dict
        Frames by which part of them the detection looked at; see :class:`.look.Look`.
    pose : RegistrationResult or None
        The patient's pose, as it was shown last.
    accepted : bool
        A person has accepted it.
    alerts : tuple of Alert
        Open alerts about the patient, as they were sent last.
    """

    def __init__(self) -> None:
        self.status = "no_model"
        self.status_reason = ""
        self.since = 0.0
        self.engine_fault = ""
        self.tool_faults: dict[str, str] = {}
        self.tools_rejected: Mapping[str, int] = {}
        self.looks: Mapping[str, int] = {}
        self.pose: RegistrationResult | None = None
        self.accepted = False
        self.alerts: tuple[Alert, ...] = ()

    def take(self, at_s: float, frame: FrameRecord) -> None:
        """A frame has been processed."""
        if frame.status == "tracking" or not self.since:
            self.since = at_s
        self.status, self.status_reason = frame.status, frame.status_reason
        self.engine_fault, self.tool_faults = frame.engine_fault, frame.tool_faults
        if frame.look is not None:
            kind = frame.look.kind
            self.looks = {**self.looks, kind: self.looks.get(kind, 0) + 1}

    def follow(self, pose: HoldsPose | None, alerts: HoldsAlerts | None, tools: ObservesTools | None) -> None:
        """Takes over what stages hold; on the frame path's thread, after a frame or a command."""
        if pose is not None:
            self.pose, self.accepted = pose.latest, pose.accepted
        if alerts is not None:
            self.alerts = alerts.alerts.open()
        if tools is not None:
            self.tools_rejected = tools.rejected

    def untracked_s(self, now: float) -> float:
        """For how long the registration has not been `tracking`, s; 0 before the first frame."""
        return 0.0 if self.status == "tracking" or not self.since else now - self.since
