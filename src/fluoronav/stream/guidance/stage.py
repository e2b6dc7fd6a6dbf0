"""Guidance as a stage: distances, alerts, the plan and the outlines, from the poses of earlier stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import rotation_distance_deg
from fluoronav.stream.alerts import AlertBook
from fluoronav.stream.frame import Alert, Budget, FrameRecord
from fluoronav.stream.guidance.conditions import (
    InstrumentCondition,
    RegistrationCondition,
    WitnessCondition,
    check_drift,
    check_engines,
    check_slip,
)
from fluoronav.stream.guidance.distances import InstrumentDistances
from fluoronav.stream.guidance.outlines import OutlineModel, Silhouette
from fluoronav.stream.guidance.progress import PlannedPath
from fluoronav.stream.guidance.proximity import Proximity
from fluoronav.stream.priority import beside_the_frame_path

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OutlineLimits:
    """Change of the pose after which silhouettes are searched anew; chosen."""

    rotation_deg: float = 1.5
    shift_mm: float = 8.0  # of the target


LIMITS = OutlineLimits()


class GuidanceStage:
    """Compares the instruments with the structures and the plan."""

    name = "guidance"
    engine = "cpu"
    reads = frozenset(
        {"registration", "status", "status_reason", "objects", "breathing", "instruments", "drift", "tool_faults"}
        | {"doubts"}
    )
    writes = frozenset({"distances", "plan", "outlines", "alerts"})

    def __init__(self) -> None:
        self.alerts = AlertBook()
        self._proximity = Proximity(self.alerts)
        self._registration = RegistrationCondition(self.alerts)
        self._instruments = InstrumentCondition(self.alerts)
        self._witness = WitnessCondition(self.alerts)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="outlines", initializer=beside_the_frame_path)
        self._search: Future[list[Silhouette]] | None = None
        self._silhouettes: list[Silhouette] = []
        self._silhouettes_of: Float | None = None  # T_camera_ct of the last search
        self._pose: Float | None = None

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("guidance: surfaces")
        self._camera = camera
        self.set_plan(case.plan)
        self._outlines = OutlineModel((*(s for s in case.structures if s.drawn), *case.file.no_go), camera)
        self._structures_of = {o.name: o.structures for o in case.file.objects}
        self._target_ct = case.target_ct
        self._distances = InstrumentDistances(case.watched, case.tools, case.target_ct)
        self._proximity.watch(case.watched)
        self._instruments.reset()

    @property
    def handles(self) -> dict[str, Callable[..., object]]:
        return {"plan.set": self.set_plan, "alert.acknowledge": self.acknowledge}

    def restore(self, alerts: Sequence[Alert]) -> None:
        """Holds alerts that were open before a restart, until their distances are measured again.

        Parameters
        ----------
        alerts : sequence of Alert
            Those of structures that this case does not watch are left out. So are other kinds than proximity, which are
            raised anew where their condition holds.
        """
        self._proximity.restore(alerts)

    def acknowledge(self, alert_id: str, user: str) -> Alert | None:
        """Acknowledges an alert; returns what is to be sent.

        A proximity alert ends where its distance is not measured any more and only images showed the instrument, since
        the instrument will not be seen again under that name.
        """
        held = next((a for a in self.alerts.open() if a.id == alert_id), None)
        acknowledged = self.alerts.acknowledge(alert_id, user)
        if held is None or held.instrument is None or held.instrument in self._instruments.tracked:
            return acknowledged
        if held.kind == "proximity" and held.distance_mm is None and held.structure is not None:
            self._proximity.forget((held.instrument, held.structure))
        elif held.kind != "instrument_lost" or self._proximity.knows(held.instrument):
            return acknowledged
        text = f"acknowledged by {user or 'an unnamed user'}"
        return self.alerts.end(held.kind, text, instrument=held.instrument, structure=held.structure)

    def set_plan(self, plan) -> None:
        """Changes which trajectories are shown."""
        self._plan = [PlannedPath(t.name, np.array([t.entry_ct, t.target_ct], dtype=np.float64)) for t in plan]

    def start_again(self) -> None:
        """Forgets all alerts and levels; for benches."""
        self.alerts.end_all("")
        self._proximity.forget_levels()

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        frame.distances = tuple(
            self._proximity.update(frame, instrument.id, measured)
            for instrument in frame.instruments
            for measured in self._distances.of(instrument)
        )
        frame.plan = tuple(path.progress(frame, self._camera) for path in self._plan)
        _add(frame, self._registration.check(frame))
        _add(frame, check_slip(self.alerts, frame))
        near = self._proximity.near
        frame.alerts.extend(self._instruments.check(frame, near, self._distances.applies_to))
        self._proximity.hold_unmeasured(frame)
        _add(frame, check_drift(self.alerts, frame))
        frame.alerts.extend(self._witness.check(frame))
        _add(frame, check_engines(self.alerts, frame))
        self._draw_outlines(frame)  # last: what is drawn never stands in the way of a distance or an alert

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        if self._pose is None or self._search is not None:
            return
        old, new = self._silhouettes_of, self._pose
        if old is not None:
            shift = np.linalg.norm(((new - old) @ np.append(self._target_ct, 1))[:3])
            if rotation_distance_deg(new, old) < LIMITS.rotation_deg and shift < LIMITS.shift_mm:
                return
        self._silhouettes_of = new
        self._search = self._background.submit(self._outlines.silhouettes, new)

    def close(self) -> None:
        self._background.shutdown(wait=True, cancel_futures=True)

    def _draw_outlines(self, frame: FrameRecord) -> None:
        if self._search is not None and self._search.done():
            done, self._search = self._search, None  # a search that has failed is said once
            self._silhouettes = done.result()
        if frame.registration is not None:
            self._pose = frame.registration.T_camera_ct
            own = {s: o.registration.T_camera_ct for o in frame.objects for s in self._structures_of[o.name]}
            frame.outlines = self._outlines.outlines(self._silhouettes, self._pose, own)


def _add(frame: FrameRecord, alert: Alert | None) -> None:
    if alert is not None:
        frame.alerts.append(alert)
