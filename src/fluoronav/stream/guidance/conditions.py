"""Conditions other than proximity that raise alerts: registration, slips, instruments, drift, the witness, engines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from fluoronav.stream import reasons
from fluoronav.stream.alerts import AlertBook
from fluoronav.stream.frame import Alert, FrameRecord, Instrument
from fluoronav.stream.guidance.absence import Absence
from fluoronav.stream.guidance.distances import is_placed


@dataclass(frozen=True, slots=True)
class ConditionLimits:
    """When a condition is reported; all are chosen."""

    degraded_ns: int = 2_000_000_000  # for so long the registration is degraded: a settling pose takes a second
    lost_frames: int = 2  # without a registration
    drift_mm: float = 1.0  # tracker drift that is reported
    drift_over_mm: float = 0.7  # below which it is over


LIMITS = ConditionLimits()
PATIENT = "patient"  # what the alert of a slip is about, beside that of a registration that is lost


class RegistrationCondition:
    """Registration lost, uncertain, or never found."""

    def __init__(self, alerts: AlertBook) -> None:
        self._alerts = alerts
        self._degraded_since: int | None = None
        self._was_tracking = False
        self._lost_frames = 0

    def check(self, frame: FrameRecord) -> Alert | None:
        """The alert to be sent, or None."""
        if frame.status == "tracking" and frame.registration is not None:
            self._was_tracking, self._lost_frames, self._degraded_since = True, 0, None
            return self._alerts.end("registration_lost", "registration found again")
        if frame.status == "degraded" and frame.registration is not None:
            return self._check_degraded(frame)
        self._lost_frames, self._degraded_since = self._lost_frames + 1, None
        why = f" ({frame.status_reason})" if frame.status_reason else ""
        if self._was_tracking and (frame.status == "lost" or self._lost_frames >= LIMITS.lost_frames):
            text = f"registration lost: the overlay shows no pose{why}"
            return self._alerts.hold("registration_lost", "high", time.time_ns(), text)
        if frame.status_reason and not frame.unchanged_ms and not self._was_tracking:
            # Before the first patient is in the beam nothing fits, and nobody shall be alarmed.
            priority = "low" if frame.status_reason == reasons.NOTHING_FITS else "medium"
            return self._alerts.hold("registration_lost", priority, time.time_ns(), f"no registration{why}")
        return None

    def _check_degraded(self, frame: FrameRecord) -> Alert | None:
        self._was_tracking, self._lost_frames = True, 0
        since = frame.t_local if self._degraded_since is None else min(self._degraded_since, frame.t_local)
        self._degraded_since = since
        held = next((a for a in self._alerts.open() if a.kind == "registration_lost" and a.structure is None), None)
        # A low one says that nothing was found yet, and no more.
        if frame.t_local - since <= LIMITS.degraded_ns or (held is not None and held.priority != "low"):
            return None
        why = frame.status_reason or "it cannot be measured well"
        text = f"registration is uncertain: {why}"
        return self._alerts.hold("registration_lost", "medium", time.time_ns(), text)


def check_slip(alerts: AlertBook, frame: FrameRecord) -> Alert | None:
    """A patient who has moved, and not by breathing; the alert to be sent, or None.

    The registration follows such a patient. What was set by hand or by a tracker on the table does not.
    """
    moved = frame.breathing
    if frame.registration is None or moved is None:
        return None  # nothing is known of it, so that nothing changes
    if moved.slip_mm > 0:
        text = reasons.MOVED.format(mm=moved.slip_mm)
        return alerts.hold("registration_lost", "low", time.time_ns(), text, structure=PATIENT)
    if not alerts.is_open("registration_lost", structure=PATIENT):
        return None
    return alerts.end("registration_lost", "the patient lies as before, or was accepted there", structure=PATIENT)


class InstrumentCondition:
    """Instruments that are no longer seen.

    An instrument that only the image shows leaves the field of view often: its absence is reported only where it was
    near a structure.
    """

    def __init__(self, alerts: AlertBook) -> None:
        self._alerts = alerts
        self._absences: dict[str, Absence] = {}
        self.tracked: set[str] = set()  # instruments that a tracker has shown

    def reset(self) -> None:
        """Forgets absences, for another case."""
        self._absences = {}

    def check(self, frame: FrameRecord, near: set[str], has_distances: Callable[[Instrument], bool]) -> list[Alert]:
        """The alerts to be sent.

        Parameters
        ----------
        frame : FrameRecord
        near : set of str
            Instruments that are near a structure; of those, distances must be known.
        has_distances : callable
        """
        seen = {i.id for i in frame.instruments if (has_distances(i) if i.id in near else is_placed(i))}
        self.tracked |= {i.id for i in frame.instruments if i.origin != "image" and i.id in seen}
        for name in self.tracked | near:
            self._absences.setdefault(name, Absence())
        alerts = []
        for name, absence in list(self._absences.items()):
            if name in seen:
                absence.end()
                alert = self._alerts.end("instrument_lost", f"{name} is seen again", instrument=name)
            elif absence.goes_on(frame.t_local):
                fault = frame.tool_faults.get(name)
                why = "" if fault is None else f" ({fault})"
                by = " by the tracker" if name in self.tracked else ""
                text = f"{name} is no longer seen{by}{why}; its distances are unknown"
                alert = self._alerts.hold("instrument_lost", "medium", time.time_ns(), text, instrument=name)
            else:
                alert = None
            if alert is not None:
                alerts.append(alert)
            if name not in self.tracked and name not in near:
                del self._absences[name]
        return alerts


def check_drift(alerts: AlertBook, frame: FrameRecord) -> Alert | None:
    """Tracker drift; the alert to be sent, or None."""
    drift = frame.drift
    if drift is None:
        return None
    size = f"{drift.size_mm:.1f} mm"
    if not drift.corrected:
        text = f"the tracker is {size} off what the pictures show and is not believed: check its markers"
        return alerts.hold("tracker_drift", "high", time.time_ns(), text)
    if drift.size_mm > LIMITS.drift_mm:
        text = f"the tracker has drifted by {size}; its positions are corrected"
        return alerts.hold("tracker_drift", "low", time.time_ns(), text)
    if drift.size_mm < LIMITS.drift_over_mm:
        return alerts.end("tracker_drift", "the tracker agrees with the pictures again")
    return None


class WitnessCondition:
    """Tracked tools whose shadow lies elsewhere in the picture."""

    def __init__(self, alerts: AlertBook) -> None:
        self._alerts = alerts
        self._doubted: frozenset[str] = frozenset()

    def check(self, frame: FrameRecord) -> list[Alert]:
        """The alerts to be sent."""
        doubts = {} if frame.doubts is None else frame.doubts.tools
        if not doubts and not self._doubted:
            return []
        said = [
            self._alerts.hold("tracker_drift", "high", time.time_ns(), f"{text}: do not trust it", instrument=name)
            for name, text in doubts.items()
        ]
        said += [
            self._alerts.end("tracker_drift", f"the shadow of {name} lies where its tracker has it", instrument=name)
            for name in self._doubted - doubts.keys()
        ]
        self._doubted = frozenset(doubts)
        return [alert for alert in said if alert is not None]


def check_engines(alerts: AlertBook, frame: FrameRecord) -> Alert | None:
    """Networks that do not run on the engine asked for; the alert to be sent, or None."""
    if frame.engine_fault:
        return alerts.hold("engine", "medium", time.time_ns(), frame.engine_fault)
    return alerts.end("engine", "the networks run as asked for again")
