"""Guidance as a stage: distances, alerts, the plan and the outlines, from the poses that earlier stages found."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import NoGo, Structure
from fluoronav.geometry import rotation_distance_deg, transform_points
from fluoronav.stream.alerts import LEVELS, AlertBook, proximity_level
from fluoronav.stream.frame import Alert, Budget, Distance, FrameRecord, Instrument, Level, PlanProgress
from fluoronav.stream.guidance.approach import AHEAD_MM, ONE_SIDED_95, ClosingSpeed, ahead_mm
from fluoronav.stream.guidance.outlines import OutlineModel
from fluoronav.stream.priority import beside_the_frame_path

Float = NDArray[np.float64]

# What the segmentation adds to an error (half a voxel, 1 sigma).
_SEGMENTATION_SIGMA_MM = 0.35
# A level falls after so many frames below it.
_CALM_FRAMES = 15
# A registration that stays in doubt for so long is an alert: a settling pose takes a second.
_DOUBTED_NS = 2_000_000_000
# Where along an instrument distances are taken (mm from the tip), and the error of its axis, 1 sigma.
_ALONG_MM = np.arange(0.0, 152.0, 2.0)
_AXIS_SIGMA_RAD = float(np.deg2rad(0.3))
_RIM_TURN_DEG, _RIM_SHIFT_MM = 1.5, 8.0
# An instrument is missed after so many frames, or so long where they come slowly: one hidden exposure alarms nobody.
_INSTRUMENT_LOST_FRAMES, _INSTRUMENT_LOST_NS = 15, 500_000_000
_LOST_FRAMES = 2
# An instrument whose place is less well known than this (1 sigma) has no distances: every structure on its ray would
# be alarmed.
_PLACED_MM = 6.0
# Nor has one that is farther from the target than an arm reaches: it lies on a table, or its tracker is wrong.
_REACH_MM = 1000.0
# A trajectory within 25 degrees of the patient's long axis has no head up.
_ALONG_SPINE_COS = float(np.cos(np.deg2rad(25)))
# A tracker's drift is said from here on, and over below there.
_DRIFT_SAID_MM, _DRIFT_OVER_MM = 1.0, 0.7


def beside_axes(axis_ct: Float) -> Float:
    """Right and up, shape (2, 3), LPS, as somebody sees who looks along a trajectory.

    Parameters
    ----------
    axis_ct : ndarray, shape (3,)
        From entry to target, unit length. The patient's head is up; where the trajectory runs along the spine, the
        front is.
    """
    head = np.array([0.0, 0.0, 1.0])
    up = head if abs(axis_ct @ head) < _ALONG_SPINE_COS else np.array([0.0, -1.0, 0.0])
    up = up - (up @ axis_ct) * axis_ct
    up = up / np.linalg.norm(up)
    return np.stack([np.cross(axis_ct, up), up])


class _Path:
    """A planned trajectory: from entry to target (`ends_ct`, LPS mm), its axis, and right and up beside it."""

    def __init__(self, name: str, ends_ct: Float) -> None:
        self.name, self.ends_ct = name, ends_ct
        along = ends_ct[1] - ends_ct[0]
        self.axis_ct = along / np.linalg.norm(along)
        self.beside_ct = beside_axes(self.axis_ct)


class GuidanceStage:
    """Compares the instruments with the structures and the plan."""

    name = "guidance"
    engine = "cpu"
    reads = frozenset({"registration", "status", "status_reason", "objects", "instruments", "drift", "tool_faults"})
    writes = frozenset({"distances", "plan", "outlines", "alerts"})

    def __init__(self) -> None:
        self.alerts = AlertBook()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="outlines", initializer=beside_the_frame_path)
        self._looking: Future | None = None
        self._rims: list = []
        self._rims_for: Float | None = None
        self._pose: Float | None = None
        self._levels: dict[tuple[str, str], tuple[Level, int]] = {}
        self._closing: dict[tuple[str, str], ClosingSpeed] = {}
        self._unseen: dict[str, _Absence] = {}
        self._gone: dict[tuple[str, str], _Absence] = {}
        self._last_mm: dict[tuple[str, str], float] = {}
        self._tracked: set[str] = set()
        self._doubted_since: int | None = None
        self._was_tracking = False
        self._lost_frames = 0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("guidance: surfaces")
        self._camera = camera
        self._watched = case.watched
        self.set_plan(case.plan)
        self._outlines = OutlineModel((*case.structures, *case.file.no_go), camera)
        self._structures_of = {o.name: o.structures for o in case.file.objects}
        self._centre_ct = case.target_ct
        self._tools = {t.id: t for t in case.tools}
        self._out = np.empty((len(_ALONG_MM), 4))
        self._out_ahead = np.empty((len(AHEAD_MM), 4))
        for s in self._watched:
            s.distances(np.zeros((1, 3)), self._out[:1])  # compiles
        self._unseen = {}
        self._closing = {}
        self._thresholds = {s.name: (s.caution_mm, s.danger_mm) for s in self._watched}

    @property
    def handles(self) -> dict[str, Callable[..., object]]:
        return {"plan.set": self.set_plan, "alert.acknowledge": self.acknowledge}

    def restore(self, alerts: Sequence[Alert]) -> None:
        """Goes on holding alarms that were open before a restart, until their distances are measured again.

        Parameters
        ----------
        alerts : sequence of Alert
            Those of structures that this case does not watch are left out, and those of other kinds: they are raised
            anew if they hold.
        """
        for alert in alerts:
            instrument, structure = alert.instrument, alert.structure
            if alert.kind != "proximity" or instrument is None or structure is None:
                continue
            if structure not in self._thresholds or self.alerts.is_open("proximity", instrument, structure):
                continue  # a frame has measured it already
            self._levels[instrument, structure] = ("danger" if alert.priority == "high" else "caution"), 0
            name = structure.replace("_", " ")
            text = f"{instrument} was near the {name} before the restart; not measured since"
            self.alerts.restore(replace(alert, distance_mm=None, lower_mm=None, text=text))

    def acknowledge(self, alert_id: str, user: str) -> Alert | None:
        """Somebody has seen an alert; returns what is to be sent.

        An alarm that cannot be measured any more, of an instrument that only pictures showed, ends with it: under that
        name it will not be seen again.
        """
        held = next((a for a in self.alerts.open() if a.id == alert_id), None)
        seen = self.alerts.acknowledge(alert_id, user)
        if held is None or held.instrument is None or held.instrument in self._tracked:
            return seen
        if held.kind == "proximity" and held.distance_mm is None and held.structure is not None:
            self._forget((held.instrument, held.structure))
        elif held.kind != "instrument_lost" or any(name == held.instrument for name, _ in self._levels):
            return seen
        text = f"acknowledged by {user or 'an unnamed user'}"
        return self.alerts.end(held.kind, text, instrument=held.instrument, structure=held.structure)

    def _forget(self, key: tuple[str, str]) -> None:
        for kept in (self._levels, self._gone, self._closing, self._last_mm):
            kept.pop(key, None)

    def set_plan(self, plan) -> None:
        """Changes which trajectories are shown."""
        self._plan = [_Path(t.name, np.array([t.entry_ct, t.target_ct], dtype=np.float64)) for t in plan]

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        self._take_rims()
        frame.distances = tuple(d for i in frame.instruments for d in self._distances(frame, i))
        frame.plan = tuple(self._progress(frame, path) for path in self._plan)
        if frame.registration is not None:
            self._pose = frame.registration.T_camera_ct
            own = {s: o.registration.T_camera_ct for o in frame.objects for s in self._structures_of[o.name]}
            frame.outlines = self._outlines.outlines(self._rims, self._pose, own)
        self._watch_registration(frame)
        self._watch_instruments(frame)
        self._hold_what_is_not_measured(frame)
        self._watch_drift(frame)
        self._watch_engines(frame)

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        if self._pose is None or self._looking is not None:
            return
        old, new = self._rims_for, self._pose
        if old is not None:
            shift = np.linalg.norm(((new - old) @ np.append(self._centre_ct, 1))[:3])
            if rotation_distance_deg(new, old) < _RIM_TURN_DEG and shift < _RIM_SHIFT_MM:
                return
        self._rims_for = new
        self._looking = self._background.submit(self._outlines.rims, new)

    def close(self) -> None:
        self._background.shutdown(wait=True, cancel_futures=True)

    def _take_rims(self) -> None:
        if self._looking is not None and self._looking.done():
            self._rims = self._looking.result()
            self._looking = None

    def _distances(self, frame: FrameRecord, instrument: Instrument) -> list[Distance]:
        if instrument.tip_ct is None or not self._has_distances(instrument):
            return []
        points, radii, sigmas, beside = self._along(instrument)
        widest = float(radii.max())
        turned = 0.0 if instrument.curvature is None else instrument.curvature.tip_angle_rad / ONE_SIDED_95
        further = np.hypot(sigmas[0], np.hypot(_AXIS_SIGMA_RAD, turned) * AHEAD_MM)
        found = []
        for s in self._watched:
            assert s.caution_mm is not None and s.danger_mm is not None
            out = self._out[: len(points)]
            s.distances(points, out)
            lower_bounds = out[:, 0] - radii - ONE_SIDED_95 * sigmas - beside
            k = int(lower_bounds.argmin())
            distance, lower = float(out[k, 0] - radii[k]), float(lower_bounds[k])
            key = (instrument.id, s.name)
            if not (math.isfinite(distance) and math.isfinite(lower)):
                continue
            self._last_mm[key] = distance
            level = self._level(key, lower, s.caution_mm, s.danger_mm)
            contact_s = self._closing.setdefault(key, ClosingSpeed()).contact_s(frame.t_acq, distance)
            self._alert_proximity(frame, instrument.id, s, distance, lower, level, contact_s)
            nearest = points[k] - out[k, 0] * out[k, 1:]
            ahead = None
            if instrument.axis_ct is not None:
                ahead = ahead_mm(s, instrument.tip_ct, instrument.axis_ct, widest, further, self._out_ahead)
            found.append(Distance(instrument.id, s.name, distance, lower, nearest, level, ahead, contact_s))
        return found

    def _has_distances(self, instrument: Instrument) -> bool:
        if instrument.tip_ct is None or not _placed(instrument):
            return False
        return float(np.abs(instrument.tip_ct - self._centre_ct).max()) < _REACH_MM

    def _level(self, key: tuple[str, str], lower_mm: float, caution_mm: float, danger_mm: float) -> Level:
        """Rises at once; falls only when it has been lower for a while, or a trembling hand would make it flutter."""
        before, calm = self._levels.get(key, ("clear", 0))
        now = proximity_level(lower_mm, caution_mm, danger_mm, before)
        if LEVELS.index(now) < LEVELS.index(before) and calm + 1 < _CALM_FRAMES:
            self._levels[key] = before, calm + 1
            return before
        self._levels[key] = now, 0
        return now

    def _along(self, instrument: Instrument) -> tuple[Float, Float, Float, Float]:
        """Points of an instrument's axis from the tip on, its radius there, their errors (1 sigma), and how far a bent
        shaft may lie beside them."""
        assert instrument.tip_ct is not None
        tool = self._tools.get(instrument.id)
        steps = _ALONG_MM[:1]
        if tool is not None and instrument.axis_ct is not None:
            steps = _ALONG_MM[tool.length_mm >= _ALONG_MM]
        axis = np.zeros(3) if instrument.axis_ct is None else instrument.axis_ct
        radii = np.zeros(len(steps)) if tool is None else tool.radii_mm(steps)
        sigmas = np.sqrt(instrument.sigma_mm**2 + (_AXIS_SIGMA_RAD * steps) ** 2 + _SEGMENTATION_SIGMA_MM**2)
        beside = np.zeros(len(steps)) if instrument.curvature is None else instrument.curvature.lateral_offset_mm(steps)
        return instrument.tip_ct - steps[:, None] * axis, radii, sigmas, beside

    def _alert_proximity(
        self,
        frame: FrameRecord,
        instrument: str,
        s: Structure | NoGo,
        distance: float,
        lower: float,
        level: Level,
        contact_s: float | None,
    ) -> None:
        name = s.name.replace("_", " ")
        where = {"instrument": instrument, "structure": s.name, "distance_mm": distance, "lower_mm": lower}
        if level == "clear":
            alert = self.alerts.end("proximity", f"{instrument} is clear of the {name} again", **where)
        else:
            danger = level == "danger"
            soon = "" if contact_s is None else f", in {contact_s:.1f} s at this speed"
            alert = self.alerts.hold(
                "proximity",
                "high" if danger else "medium",
                time.time_ns(),
                f"{instrument} is {max(distance, 0):.1f} mm from the {name} (at least {max(lower, 0):.1f} mm){soon}"
                if distance > 0
                else f"{instrument} is inside the {name}",
                threshold_mm=s.danger_mm if danger else s.caution_mm,
                **where,
            )
        if alert is not None:
            frame.alerts.append(alert)

    def _progress(self, frame: FrameRecord, path: _Path) -> PlanProgress:
        entry_px = target_px = None
        if frame.registration is not None:
            ends = transform_points(frame.registration.T_camera_ct, path.ends_ct)
            entry_px, target_px = (p if np.isfinite(p).all() else None for p in self._camera.project(ends))
        tracked = next((i for i in frame.instruments if i.tip_ct is not None and i.axis_ct is not None), None)
        if tracked is None or tracked.tip_ct is None or tracked.axis_ct is None:
            return PlanProgress(path.name, entry_px, target_px, None, None, None)
        cosine = float(np.clip(path.axis_ct @ tracked.axis_ct, -1, 1))
        entry_ct, target_ct = path.ends_ct
        offset = tracked.tip_ct - entry_ct
        beside = offset - (offset @ path.axis_ct) * path.axis_ct
        return PlanProgress(
            path.name,
            entry_px,
            target_px,
            float(np.rad2deg(np.arccos(cosine))),
            float(np.linalg.norm(beside)),
            float((target_ct - tracked.tip_ct) @ path.axis_ct),
            path.beside_ct @ beside,
        )

    def _watch_registration(self, frame: FrameRecord) -> None:
        now = time.time_ns()
        alert = None
        if frame.status == "tracking" and frame.registration is not None:
            self._was_tracking, self._lost_frames, self._doubted_since = True, 0, None
            alert = self.alerts.end("registration_lost", "registration found again")
        elif frame.status == "degraded" and frame.registration is not None:
            self._was_tracking, self._lost_frames = True, 0
            since = frame.t_local if self._doubted_since is None else min(self._doubted_since, frame.t_local)
            self._doubted_since = since
            if frame.t_local - since > _DOUBTED_NS and not self.alerts.is_open("registration_lost"):
                why = frame.status_reason or "it cannot be measured well"
                alert = self.alerts.hold("registration_lost", "medium", now, f"registration is uncertain: {why}")
        else:
            self._lost_frames, self._doubted_since = self._lost_frames + 1, None
            why = f" ({frame.status_reason})" if frame.status_reason else ""
            if self._was_tracking and (frame.status == "lost" or self._lost_frames >= _LOST_FRAMES):
                text = f"registration lost: the overlay shows no pose{why}"
                alert = self.alerts.hold("registration_lost", "high", now, text)
            elif frame.status_reason and not frame.unchanged_ms and not self._was_tracking:
                alert = self.alerts.hold("registration_lost", "medium", now, f"no registration{why}")
        if alert is not None:
            frame.alerts.append(alert)

    def _watch_drift(self, frame: FrameRecord) -> None:
        drift = frame.drift
        if drift is None:
            return
        size = f"{drift.size_mm:.1f} mm"
        if not drift.corrected:
            text = f"the tracker is {size} off what the pictures show and is not believed: check its markers"
            alert = self.alerts.hold("tracker_drift", "high", time.time_ns(), text)
        elif drift.size_mm > _DRIFT_SAID_MM:
            text = f"the tracker has drifted by {size}; its positions are corrected"
            alert = self.alerts.hold("tracker_drift", "low", time.time_ns(), text)
        elif drift.size_mm < _DRIFT_OVER_MM:
            alert = self.alerts.end("tracker_drift", "the tracker agrees with the pictures again")
        else:
            alert = None
        if alert is not None:
            frame.alerts.append(alert)

    def _watch_engines(self, frame: FrameRecord) -> None:
        if frame.engine_fault:
            alert = self.alerts.hold("engine", "medium", time.time_ns(), frame.engine_fault)
        else:
            alert = self.alerts.end("engine", "the networks run as asked for again")
        if alert is not None:
            frame.alerts.append(alert)

    def _watch_instruments(self, frame: FrameRecord) -> None:
        # One that only the picture shows leaves the field every other minute: nobody is alarmed by that, unless it was
        # near something.
        near = {name for (name, _), (level, _) in self._levels.items() if level != "clear"}
        placed = {i.id for i in frame.instruments if (self._has_distances(i) if i.id in near else _placed(i))}
        self._tracked |= {i.id for i in frame.instruments if i.origin != "image" and i.id in placed}
        for name in self._tracked | near:
            self._unseen.setdefault(name, _Absence())
        for name, absence in list(self._unseen.items()):
            if name in placed:
                absence.end()
                alert = self.alerts.end("instrument_lost", f"{name} is seen again", instrument=name)
            elif absence.lasts(frame.t_local):
                fault = frame.tool_faults.get(name)
                why = "" if fault is None else f" ({fault})"
                by = " by the tracker" if name in self._tracked else ""
                text = f"{name} is no longer seen{by}{why}; its distances are unknown"
                alert = self.alerts.hold("instrument_lost", "medium", time.time_ns(), text, instrument=name)
            else:
                alert = None
            if alert is not None:
                frame.alerts.append(alert)
            if name not in self._tracked and name not in near:
                del self._unseen[name]

    def _hold_what_is_not_measured(self, frame: FrameRecord) -> None:
        """An alarm whose distance is unknown stays as it was last known, and says so: unknown is not clear."""
        here = {(d.instrument, d.structure) for d in frame.distances}
        for key, (level, _) in list(self._levels.items()):
            absence = self._gone.setdefault(key, _Absence())
            if key in here:
                absence.end()
                continue
            if not absence.lasts(frame.t_local):
                continue
            if level == "clear":
                self._forget(key)
                continue
            name, structure = key
            last = self._last_mm.get(key)
            was = "" if last is None else f"; it was {max(last, 0):.1f} mm"
            caution_mm, danger_mm = self._thresholds[structure]
            alert = self.alerts.hold(
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


class _Absence:
    """Since when something has not been seen."""

    def __init__(self) -> None:
        self.end()

    def end(self) -> None:
        """It is seen."""
        self._frames, self._since = 0, 0

    def lasts(self, t_local: int) -> bool:
        """It is not seen in this frame either: whether that has lasted long enough to be said."""
        self._frames += 1
        if self._frames == 1:
            self._since = t_local
        return self._frames >= _INSTRUMENT_LOST_FRAMES or t_local - self._since > _INSTRUMENT_LOST_NS


def _placed(instrument: Instrument) -> bool:
    """Whether it is known well enough where an instrument is in the patient to give its distances."""
    tip_ct = instrument.tip_ct
    return tip_ct is not None and bool(np.isfinite(tip_ct).all()) and instrument.sigma_mm <= _PLACED_MM
