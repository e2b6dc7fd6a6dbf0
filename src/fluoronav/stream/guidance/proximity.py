"""Proximity levels with hysteresis, and the alerts that they raise."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fluoronav.case import NoGo, Structure
from fluoronav.stream.alerts import LEVELS, AlertBook, proximity_level
from fluoronav.stream.frame import Alert, Distance, FrameRecord, Level
from fluoronav.stream.guidance.absence import Absence
from fluoronav.stream.guidance.approach import ClosingSpeed
from fluoronav.stream.guidance.distances import Measurement

Key = tuple[str, str]  # instrument, structure


@dataclass(frozen=True, slots=True)
class LevelLimits:
    """When a level falls."""

    calm_frames: int = 15  # below it; chosen: half a second at 30 frames/s, or a trembling hand makes it flutter


LIMITS = LevelLimits()


class Proximity:
    """Levels of instruments at structures. They outlast a change of the case.

    Parameters
    ----------
    alerts : AlertBook
    """

    def __init__(self, alerts: AlertBook) -> None:
        self._alerts = alerts
        self._levels: dict[Key, tuple[Level, int]] = {}
        self._closing: dict[Key, ClosingSpeed] = {}
        self._absences: dict[Key, Absence] = {}
        self._last_mm: dict[Key, float] = {}
        self._thresholds: dict[str, tuple[float | None, float | None]] = {}

    def watch(self, obstacles: Sequence[Structure | NoGo]) -> None:
        """Takes the thresholds of a case."""
        self._closing = {}
        self._thresholds = {s.name: (s.caution_mm, s.danger_mm) for s in obstacles}

    @property
    def near(self) -> set[str]:
        """Instruments with a level above clear."""
        return {name for (name, _), (level, _) in self._levels.items() if level != "clear"}

    def knows(self, instrument: str) -> bool:
        """Whether an instrument has a level at any structure."""
        return any(name == instrument for name, _ in self._levels)

    def forget(self, key: Key) -> None:
        for kept in (self._levels, self._absences, self._closing, self._last_mm):
            kept.pop(key, None)

    def forget_levels(self) -> None:
        """Starts from clear again."""
        self._levels.clear()

    def restore(self, alerts: Sequence[Alert]) -> None:
        """Holds proximity alerts that were open before a restart; see :meth:`.stage.GuidanceStage.restore`."""
        for alert in alerts:
            instrument, structure = alert.instrument, alert.structure
            if alert.kind != "proximity" or instrument is None or structure is None:
                continue
            if structure not in self._thresholds or self._alerts.is_open("proximity", instrument, structure):
                continue  # a frame has measured it already
            self._levels[instrument, structure] = ("danger" if alert.priority == "high" else "caution"), 0
            name = structure.replace("_", " ")
            text = f"{instrument} was near the {name} before the restart; not measured since"
            self._alerts.restore(replace(alert, distance_mm=None, lower_mm=None, text=text))

    def update(self, frame: FrameRecord, instrument: str, measured: Measurement) -> Distance:
        """Takes a distance: updates its level, and adds to the frame's alerts."""
        m, obstacle = measured, measured.obstacle
        assert obstacle.caution_mm is not None and obstacle.danger_mm is not None
        key = (instrument, obstacle.name)
        self._last_mm[key] = m.distance_mm
        level = self._level(key, m.lower_mm, obstacle.caution_mm, obstacle.danger_mm)
        contact_s = self._closing.setdefault(key, ClosingSpeed()).contact_s(frame.t_acq, m.distance_mm)
        alert = self._alert(instrument, m, level, contact_s)
        if alert is not None:
            frame.alerts.append(alert)
        return Distance(
            instrument, obstacle.name, m.distance_mm, m.lower_mm, m.nearest_ct, level, m.ahead_mm, contact_s
        )  # fmt: skip

    def hold_unmeasured(self, frame: FrameRecord) -> None:
        """Holds the alerts whose distance is not measured any more, and reports that: unknown is not clear."""
        measured = {(d.instrument, d.structure) for d in frame.distances}
        for key, (level, _) in list(self._levels.items()):
            absence = self._absences.setdefault(key, Absence())
            if key in measured:
                absence.end()
                continue
            if not absence.goes_on(frame.t_local):
                continue
            if level == "clear":
                self.forget(key)
                continue
            name, structure = key
            last = self._last_mm.get(key)
            was = "" if last is None else f"; it was {max(last, 0):.1f} mm"
            caution_mm, danger_mm = self._thresholds[structure]
            alert = self._alerts.hold(
                "proximity",
                "high" if level == "danger" else "medium",
                time.time_ns(),
                f"the distance of {name} from the {structure.replace('_', ' ')} is no longer measured{was}",
                instrument=name,
                structure=structure,
                threshold_mm=danger_mm if level == "danger" else caution_mm,
            )
            if alert is not None:
                frame.alerts.append(alert)

    def _level(self, key: Key, lower_mm: float, caution_mm: float, danger_mm: float) -> Level:
        """Rises at once; falls after it has been lower for some frames."""
        before, calm = self._levels.get(key, ("clear", 0))
        now = proximity_level(lower_mm, caution_mm, danger_mm, before)
        if LEVELS.index(now) < LEVELS.index(before) and calm + 1 < LIMITS.calm_frames:
            self._levels[key] = before, calm + 1
            return before
        self._levels[key] = now, 0
        return now

    def _alert(self, instrument: str, m: Measurement, level: Level, contact_s: float | None) -> Alert | None:
        obstacle, distance, lower = m.obstacle, m.distance_mm, m.lower_mm
        name = obstacle.name.replace("_", " ")
        if level == "clear":
            return self._alerts.end(
                "proximity", f"{instrument} is clear of the {name} again", instrument=instrument,
                structure=obstacle.name, distance_mm=distance, lower_mm=lower,
            )  # fmt: skip
        danger = level == "danger"
        soon = "" if contact_s is None else f", in {contact_s:.1f} s at this speed"
        text = f"{instrument} is inside the {name}"
        if distance > 0:
            text = f"{instrument} is {max(distance, 0):.1f} mm from the {name} (at least {max(lower, 0):.1f} mm){soon}"
        return self._alerts.hold(
            "proximity", "high" if danger else "medium", time.time_ns(), text, instrument=instrument,
            structure=obstacle.name, distance_mm=distance, lower_mm=lower,
            threshold_mm=obstacle.danger_mm if danger else obstacle.caution_mm,
        )  # fmt: skip
