"""Rules that hold under every fault; each message is judged against the simulator's truth.

1. No pose older than 300 ms is called `tracking`, and none whose error is far beyond its bound.
2. No alarm is lowered while its distance is unknown, or below the level of the true distance.
3. Health says `running` only if frames, poses and tools are delivered.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.lab.target_error import target_error_mm

Float = NDArray[np.float64]

_RANK = {"clear": 0, "caution": 1, "danger": 2}
_LEVEL_OF = {"high": "danger", "medium": "caution", "low": "clear"}


@dataclass(frozen=True)
class Limits:
    """What the rules allow; all chosen.

    Attributes
    ----------
    pose_age_ms : float
        Highest age of a pose that is called `tracking`.
    bound_factor, bound_slack_mm : float
        A pose is wrong if its error exceeds `bound_factor` times its 95 % bound plus the slack, mm.
    wrong_ms : float
        Longest time for which a wrong pose may be called `tracking`.
    level_slack_mm : float
        A level must not be lower than that of the true distance plus this slack, mm.
    unregistered_s : float
        Time without a pose from which health must not say `running`; health comes once a second and on changes.
    missed_fraction, missed_windows_s
        Fraction of late frames in each of the last windows, s, above which health must not say `running`.
    on_their_way : int
        Number of late overlays that health may not have counted yet.
    skipped_fraction : float
        The same for frames that were late or skipped.
    untracked_s : float
        Time without a tool message from which health must not say `running`.
    stale_s : float
        Time without a frame from which health must not say `running`.
    silent_s : float
        Time without health from which it is silent; it comes once a second.
    tip_within_mm : float
        Error of the tracked tool's tip below which it is right.
    least_frames : int
        Frames in a window below which its fractions do not count.
    listed_after_s : float
        Time after which health must list an open alarm.
    """

    pose_age_ms: float = 300.0
    bound_factor: float = 3.0
    bound_slack_mm: float = 2.0
    wrong_ms: float = 300.0
    level_slack_mm: float = 1.0
    unregistered_s: float = 2.3
    missed_fraction: float = 0.10
    missed_windows_s: tuple[float, float] = (3.0, 10.0)
    on_their_way: int = 2
    skipped_fraction: float = 0.5
    untracked_s: float = 3.0
    stale_s: float = 0.8
    silent_s: float = 3.0
    tip_within_mm: float = 3.0
    least_frames: int = 10
    listed_after_s: float = 1.0


@dataclass(frozen=True)
class Promised:
    """What the launch file configures.

    Attributes
    ----------
    registration, tracker : bool
    """

    registration: bool = True
    tracker: bool = True


@dataclass(frozen=True)
class Exposure:
    """The truth when a frame was sent.

    Attributes
    ----------
    t : float
        s since the epoch, by the bench's clock.
    seq : int
        Number in its header.
    T_camera_ct : ndarray, shape (4, 4)
        mm.
    tip_ct : ndarray, shape (3,)
        Tip of the tracked tool, LPS, mm.
    distances_mm : mapping
        Distance of the tool from each watched structure's surface.
    """

    t: float
    seq: int
    T_camera_ct: Float
    tip_ct: Float
    distances_mm: Mapping[str, float]


@dataclass(frozen=True)
class Outside:
    """Times at which the bench sent the last frame and the last good tool message, s since the epoch."""

    frames_at: float
    tools_at: float


@dataclass(frozen=True)
class Breach:
    """A broken rule: time (s since the epoch), rule, and description."""

    t: float
    rule: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """Whether an overlay's pose and its tracked tool are measured and right."""

    pose: bool
    tool: bool


@dataclass
class _Open:
    level: str
    instrument: str | None
    structure: str | None
    since: float


@dataclass
class Judge:
    """Judges the messages of one pipeline, in their order.

    Parameters
    ----------
    promised : Promised
    period_s : float
        Frame period, for overlays that state a pose's age in frames only.
    target_ct : array, shape (3,)
        Point at which the pose's error is measured, LPS, mm.
    thresholds_mm : mapping
        Caution and danger thresholds by structure.

    Attributes
    ----------
    breaches : list of Breach
    open : dict
        Open proximity alarms, by instance and id.
    """

    promised: Promised
    period_s: float
    target_ct: Sequence[float]
    thresholds_mm: Mapping[str, tuple[float, float]]
    limits: Limits = Limits()
    breaches: list[Breach] = field(default_factory=list)
    open: dict[tuple[str, str], _Open] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._frames: deque[tuple[float, bool, int]] = deque(maxlen=2000)
        self.started()

    def started(self) -> None:
        """Resets the state for a new pipeline."""
        self.open.clear()
        self._frames.clear()
        self._posed_at = self._first_at = self._health_at = 0.0
        self._wrong_since: float | None = None
        self._instance = ""
        self._loading = False
        self._truth: Exposure | None = None

    def overlay(self, t: float, o: Mapping[str, Any], exposure: Exposure | None) -> Verdict:
        """Judges an overlay.

        Parameters
        ----------
        t : float
            Time of reception, s since the epoch.
        o : mapping
        exposure : Exposure, optional
            Of its frame; without it, rules that need the truth are left out.
        """
        self._first_at = self._first_at or t
        self._frames.append((t, bool(o["missed"]), int(o["dropped"]["overload"])))
        self._truth = exposure or self._truth
        where = not_finite(o)
        if where:
            self._breach(t, "finite", f"overlay {o['seq']} has a number that is not finite: {where}")
        if o["status"] in ("tracking", "degraded"):
            self._posed_at = t
        return Verdict(self._pose(t, o, exposure), self._tool(t, o, exposure))

    def alert(self, t: float, a: Mapping[str, Any]) -> None:
        """Judges an alert."""
        if a["kind"] != "proximity":
            return
        key = str(a.get("instance", self._instance)), str(a["id"])
        before, level = self.open.get(key), "clear" if a["state"] == "cleared" else _LEVEL_OF[a["priority"]]
        if a["state"] == "acknowledged":
            return
        if before is not None and _RANK[level] < _RANK[before.level] and not self._loading:
            self._lowered(t, a, before, level)
        if a["state"] == "cleared":
            self.open.pop(key, None)
        else:
            self.open[key] = _Open(level, a["instrument"], a["structure"], before.since if before else t)

    def health(self, t: float, h: Mapping[str, Any], outside: Outside) -> None:
        """Judges a health message."""
        limits = self.limits
        silent = t - self._health_at
        if self._health_at and silent > limits.silent_s:
            self._breach(t, "running", f"health was silent for {silent:.1f} s")
        self._health_at = t
        self._loading = bool(h.get("loading"))
        where = not_finite(h)
        if where:
            self._breach(t, "finite", f"health has a number that is not finite: {where}")
        self._reconcile(t, h)
        if h["state"] != "running" or not self._first_at:
            return
        unregistered = t - max(self._posed_at, self._first_at)
        if self.promised.registration and unregistered > limits.unregistered_s:
            self._breach(t, "running", f"health says running without a pose for {unregistered:.1f} s")
        untracked = t - max(outside.tools_at, self._first_at)
        if self.promised.tracker and untracked > limits.untracked_s:
            self._breach(t, "running", f"health says running without the tracker, silent for {untracked:.1f} s")
        if t - outside.frames_at > limits.stale_s:
            self._breach(t, "running", f"health says running without a frame for {t - outside.frames_at:.1f} s")
        late, skipped = (min(self._fraction(t, w, k) for w in limits.missed_windows_s) for k in (0, 1))
        if late > limits.missed_fraction:
            self._breach(t, "running", f"health says running while {late:.0%} of the frames are late")
        elif skipped > limits.skipped_fraction:
            self._breach(t, "running", f"health says running while {skipped:.0%} of the frames are late or skipped")

    def unreadable(self, t: float, kind: str, why: str) -> Verdict:
        """Notes a message that violates the protocol."""
        self._breach(t, "protocol", f"{'an' if kind[0] in 'ao' else 'a'} {kind} is not as the protocol has it: {why}")
        return Verdict(False, False)

    def since(self, t: float) -> list[str]:
        """Breaches since a time, one line per rule: the first, and the number of the others."""
        found: dict[str, list[Breach]] = {}
        for b in self.breaches:
            if b.t >= t:
                found.setdefault(b.rule, []).append(b)
        return [
            some[0].text + (f" (and {len(some) - 1} more in {some[-1].t - some[0].t:.1f} s)" if len(some) > 1 else "")
            for some in found.values()
        ]

    def _breach(self, t: float, rule: str, text: str) -> None:
        self.breaches.append(Breach(t, rule, text))

    def _pose(self, t: float, o: Mapping[str, Any], exposure: Exposure | None) -> bool:
        r = o["registration"]
        if o["status"] != "tracking":
            self._wrong_since = None
            return False
        if r is None:
            self._breach(t, "age", f"overlay {o['seq']} says tracking without a pose")
            return False
        age_ms = float(r.get("age_ms", 1000 * self.period_s * r["age"]))
        good = age_ms <= self.limits.pose_age_ms
        if not good:
            self._breach(t, "age", f"a pose of {age_ms:.0f} ms ago is called tracking")
        if exposure is None:
            return good
        late_ms = (o["t_sent"] / 1e9 - exposure.t) * 1000
        if late_ms > self.limits.pose_age_ms and not o["missed"]:
            self._breach(t, "age", f"an overlay leaves {late_ms:.0f} ms after its exposure as tracking, not as late")
        across, space = pose_errors(np.array(r["T_camera_ct"]).reshape(4, 4), exposure.T_camera_ct, self.target_ct)
        factor, slack = self.limits.bound_factor, self.limits.bound_slack_mm
        if across <= factor * r["tre_image_mm"] + slack and space <= factor * r["tre_mm"] + slack:
            self._wrong_since = None
            return good
        if self._wrong_since is None:
            self._wrong_since = t
        if t - self._wrong_since > self.limits.wrong_ms / 1000:
            self._breach(
                t, "wrong", f"tracking with a pose that is {across:.1f} mm wrong across and {space:.1f} mm in space, "
                f"said: {r['tre_image_mm']:.1f} and {r['tre_mm']:.1f} mm",
            )  # fmt: skip
        return False

    def _tool(self, t: float, o: Mapping[str, Any], exposure: Exposure | None) -> bool:
        if exposure is None:
            return False
        for d in o["distances"]:
            demanded = self._demanded(exposure, d["structure"])
            if d["structure"] in exposure.distances_mm and _RANK[d["level"]] < _RANK[demanded]:
                true = exposure.distances_mm[d["structure"]]
                self._breach(
                    t, "level", f"overlay {o['seq']} says {d['level']} at {d['distance_mm']:.4g} mm from the "
                    f"{d['structure']}; in truth it is {true:.1f} mm",
                )  # fmt: skip
        return any(
            i["tip_ct"] is not None and math.dist(i["tip_ct"], exposure.tip_ct) < self.limits.tip_within_mm
            for i in o["instruments"]
            if i["origin"] != "image"
        )

    def _demanded(self, exposure: Exposure, structure: str | None) -> str:
        if structure is None or structure not in exposure.distances_mm or structure not in self.thresholds_mm:
            return "clear"
        caution, danger = self.thresholds_mm[structure]
        surely = exposure.distances_mm[structure] + self.limits.level_slack_mm
        return "danger" if surely <= danger else "caution" if surely <= caution else "clear"

    def _lowered(self, t: float, a: Mapping[str, Any], before: _Open, level: str) -> None:
        what = f"the {before.level} alarm of {before.instrument} and {before.structure} became {level}"
        if not _known(a["distance_mm"]) or not _known(a["lower_mm"]):
            self._breach(t, "level", f"{what} while no distance is measured: {a['text']}")
        elif self._truth is not None and _RANK[level] < _RANK[self._demanded(self._truth, before.structure)]:
            true = self._truth.distances_mm[str(before.structure)]
            self._breach(
                t, "level", f"{what} at {a['distance_mm']:.4g} mm; in truth it is {true:.1f} mm: {a['text']}"
            )  # fmt: skip

    def _reconcile(self, t: float, h: Mapping[str, Any]) -> None:
        """Compares the open alarms with those that health lists."""
        instance = str(h.get("instance", ""))
        if instance != self._instance:
            self._instance = instance
            self.open = {k: v for k, v in self.open.items() if k[0] == instance}
        if "alerts" not in h:
            return
        listed = {(str(a.get("instance", instance)), str(a["id"])): a for a in h["alerts"]}
        for key, held in list(self.open.items()):
            if key not in listed and t - held.since > self.limits.listed_after_s:
                del self.open[key]
                self._breach(
                    t, "level",
                    f"the {held.level} alarm of {held.instrument} and {held.structure} is open, and health has it not",
                )  # fmt: skip
        for key, a in listed.items():
            if a["kind"] == "proximity" and key not in self.open:
                self.open[key] = _Open(_LEVEL_OF[a["priority"]], a["instrument"], a["structure"], t)

    def _fraction(self, t: float, window_s: float, skipped: int) -> float:
        """Fraction of late (and, with `skipped`, skipped) frames in a window; 0 before the pipeline has run for it."""
        if t - self._first_at < window_s:
            return 0.0
        within = [(late, over) for at, late, over in self._frames if at > t - window_s]
        over = skipped * sum(o for _, o in within)
        count = len(within) + over
        late = max(sum(late for late, _ in within) - self.limits.on_their_way, 0)
        return (late + over) / count if count >= self.limits.least_frames else 0.0


def pose_errors(T_camera_ct: Float, truth: Float, target_ct: Sequence[float]) -> tuple[float, float]:
    """Error of a pose at the target, mm: across the ray, and in space."""
    across, along = target_error_mm(T_camera_ct, truth, target_ct)
    return across, math.hypot(across, along)


def not_finite(value: Any, where: str = "") -> str:
    """Path of the first number in a message that is not finite; empty if all are."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else where
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    return next((found for k, v in items if (found := not_finite(v, f"{where}.{k}".lstrip(".")))), "")


def _known(number: float | None) -> bool:
    return number is not None and math.isfinite(number)
