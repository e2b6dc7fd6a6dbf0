"""Trackers that err, hide the tool, fall silent or flood; the alarm must stay under all of these."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import msgpack

from fluoronav.lab.bench.faults.loop import AlterTools, Loop
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import Fault, Outcome
from fluoronav.lab.bench.faults.window import Window


@dataclass(frozen=True)
class ToolFaults:
    """How the faults are made, and how soon they must be reported or over, s unless said otherwise; chosen."""

    fault_s: float = 4.0  # length of each fault
    said_s: float = 2.5  # a tool is missing after half a second of frames at 30 per second, after one at 15
    back_s: float = 4.0  # until all is right again
    flood_per_s: float = 3000.0  # messages per second
    flood_s: float = 4.0  # of the flood
    other_tools: int = 6  # in each message of the flood
    delivered: float = 0.8  # fraction of the overlays before the flood
    joins_within_s: float = 1.2  # until a new display hears the alarm
    listening_s: float = 2.5  # for that


LIMITS = ToolFaults()
_LOST = ("instrument_lost", "tracker_drift", "proximity")


def of_tool(loop: Loop, change) -> AlterTools:
    """Changes the tracked tool's entry only."""
    tool = loop.scene.case.tools[0].id

    def altered(message):
        message = copy.deepcopy(message)
        for entry in message["tools"]:
            if entry["id"] == tool:
                change(entry)
        return [message]

    return altered


def _moved(x_mm: float):
    def change(entry):
        entry["T_tracker_tool"][3] += x_mm

    return change


def _implausible(place: Place, change, *, good: bool = True) -> Outcome:
    """The tool's pose is implausible: its alarm stays, and its distance is reported as unknown."""
    loop = place.loop()
    return _alarm_stays(loop, of_tool(loop, change), good=good)


def _alarm_stays(loop: Loop, altered: AlterTools, *, good: bool = True) -> Outcome:
    window = Window(loop)
    with loop.altering(tools=altered, tools_good=good):
        window.last(LIMITS.fault_s)
        window.say(window.alert(*_LOST), within_s=LIMITS.said_s, what="that the tool's distance is unknown")
        window.check(loop.alarmed(), "the danger alarm is no longer open")
    window.over()
    window.recover(LIMITS.back_s, pose=False)
    window.last(1)
    window.check(loop.alarmed(), "no danger alarm is open afterwards, and the tool is in danger")
    return window.outcome()


def _error_50mm(place: Place) -> Outcome:
    return _implausible(place, lambda entry: entry.update(error_mm=50.0))


def _hidden(place: Place) -> Outcome:
    return _implausible(place, lambda entry: entry.update(visible=False, T_tracker_tool=None))


def _nan(place: Place) -> Outcome:
    return _implausible(place, lambda entry: entry.update(T_tracker_tool=[float("nan")] * 16), good=False)


def _clock_jump(place: Place) -> Outcome:
    """Three seconds back: its poses are too old to be used."""
    loop = place.loop()
    window = Window(loop)
    with loop.altering(tools=lambda m: [m | {"t_acq": m["t_acq"] - 3_000_000_000}]):
        window.last(LIMITS.fault_s)
        shown = sum(h.verdict.tool for h in loop.since(time.time() - 1, "overlay")) > 0.8 * loop.fps
        within = None if shown else LIMITS.said_s
        window.say(window.alert(*_LOST), window.health(), within_s=within, what="that the tool's distance is unknown")
        window.seen.append("the tool is shown where it is" if shown else "the tool is not shown")
        window.check(loop.alarmed(), "the danger alarm is no longer open")
    window.over()
    window.recover(LIMITS.back_s, pose=False)
    return window.outcome()


def _gone(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    loop.tools_on = False
    try:
        window.last(5)
        window.say(window.alert(*_LOST), window.health(), within_s=3, what="that the tracker is silent")
        window.check(loop.alarmed(), "the danger alarm is no longer open")
    finally:
        loop.tools_on = True
    window.over()
    window.recover(LIMITS.back_s, pose=False)
    return window.outcome()


def _never_there(place: Place) -> Outcome:
    loop = place.fresh()
    loop.tools_on = False
    try:
        loop.start()
        window = Window(loop)
        window.last(5)
        # The tool is missing from the first frame on, i.e. before this window.
        signs = window.health("tracker"), window.alert("instrument_lost")
        window.say(*signs, within_s=5, what="that the tracker is not there")
    finally:
        loop.tools_on = True
    window.over()
    window.recover(LIMITS.back_s)
    return window.outcome()


def _flood(place: Place) -> Outcome:
    loop = place.loop()
    # The fraction without a flood, on this computer, is the reference.
    usually = min(len(loop.since(time.time() - LIMITS.flood_s, "overlay")) / (loop.fps * LIMITS.flood_s), 1.0)
    window = Window(loop)
    usual, loop.tools_per_s, before = loop.tools_per_s, LIMITS.flood_per_s, loop.tools_sent
    try:
        with loop.altering(tools=_with_others):
            window.last(LIMITS.flood_s)
        window.note("latency", "stale_frames")
        time.sleep(0.2)
        passed = time.time() - window.begin
        rate = (loop.tools_sent - before) / passed
        shown = len(loop.since(window.begin, "overlay")) / (loop.fps * passed)
    finally:
        loop.tools_per_s = usual
    window.over()
    window.check(
        shown >= LIMITS.delivered * usually,
        f"overlays for {shown:.0%} of the frames meanwhile, and {usually:.0%} before",
    )
    window.check(rate > 0.7 * LIMITS.flood_per_s, f"only {rate:.0f} messages a second could be sent")
    window.seen.append(f"{shown:.0%} of the frames meanwhile have an overlay, at {rate:.0f} messages a second")
    window.recover(LIMITS.back_s)
    return window.outcome()


def _with_others(message):
    """A tracker that reports other tools, too."""
    seen = message["tools"][0]
    return [message | {"tools": message["tools"] + [seen | {"id": f"other{k}"} for k in range(LIMITS.other_tools)]}]


def _joins(place: Place) -> Outcome:
    loop = place.loop()
    time.sleep(1.5)  # open alarms are known after that
    window = Window(loop)
    wanted = {key[1] for key, held in loop.judge.open.items() if held.level == "danger"}
    socket = loop.subscriber(b"alert/", b"health/")
    heard: float | None = None
    try:
        while heard is None and time.time() - window.begin < LIMITS.listening_s:
            if not socket.poll(20):
                continue
            topic, body = socket.recv_multipart()[:2]
            message = msgpack.unpackb(body)
            alerts = [message] if topic.startswith(b"alert/") else message.get("alerts", [])
            if any(a["id"] in wanted and a["state"] != "cleared" for a in alerts):
                heard = time.time()
    finally:
        socket.close()
    window.say(heard, within_s=LIMITS.joins_within_s, what="the open danger alarm, to a display that joined")
    return window.outcome()


FAULTS = (
    Fault(
        "tool-glitch-100m", "the alarm stays; unknown is said within 2.5 s",
        lambda p: _implausible(p, _moved(1e5)),
    ),
    Fault(
        "tool-glitch-1e200", "the alarm stays; unknown is said within 2.5 s; all numbers finite",
        lambda p: _implausible(p, _moved(1e200)),
    ),
    Fault("tool-error-50mm", "the alarm stays; unknown is said within 2.5 s", _error_50mm),
    Fault("tool-nan", "the alarm stays; unknown is said within 2.5 s; not running", _nan),
    Fault("tool-hidden-in-danger", "the alarm stays; unknown is said within 2.5 s", _hidden),
    Fault("tracker-gone", "the alarm stays; said within 3 s; not running", _gone),
    Fault("tracker-clock-jump", "the alarm stays; the tool is shown where it is, or said within 2.5 s", _clock_jump),
    Fault("tracker-flood-3000-per-second", "at least 80 % of the overlays of before the flood", _flood),
    Fault("display-joins-during-danger", "hears the open alarm within 1.2 s", _joins),
    Fault("tracker-never-there", "said within 5 s; not running", _never_there),
)  # fmt: skip
