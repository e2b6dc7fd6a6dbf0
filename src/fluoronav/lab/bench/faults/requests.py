"""Requests that are malformed, old, or repeated."""

from __future__ import annotations

import time
from dataclasses import dataclass

from fluoronav.lab.bench.faults.loop import request
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, Outcome
from fluoronav.lab.bench.faults.window import Window
from fluoronav.wire import encode


@dataclass(frozen=True)
class RequestFaults:
    """Times; chosen."""

    afterwards_s: float = 2.5  # health is watched after a request
    old_ns: int = 60 * 10**9  # age of an old request


LIMITS = RequestFaults()


def _asked_badly(place: Place, op: str, **args) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    try:
        reply = loop.ask(op, **args)
        window.say(time.time(), within_s=1.0)
        window.check(not reply["ok"], "it was granted")
        window.seen.append(str((reply.get("error") or {}).get("text", ""))[:120])
    except BenchError as error:
        window.problems.append(str(error))
    window.last(LIMITS.afterwards_s)
    health = loop.health()
    window.check(health.get("state") != "failed", f"health says failed: {health.get('error')}")
    try:
        window.check(bool(loop.ask("status")["ok"]), "status is refused afterwards")
    except BenchError as error:
        window.problems.append(f"status afterwards: {error}")
    return window.outcome()


def _repeated(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    body = encode(request("plan.set", trajectories=[t.name for t in place.scene.case.plan]))
    first = loop.ask_raw(body)
    window.check(bool(first["ok"]), f"the first one is refused: {first.get('error')}")
    _refused_as(window, loop.ask_raw(body), "repeated")
    return window.outcome()


def _old(place: Place) -> Outcome:
    loop = place.loop()
    window = Window(loop)
    asked = request("plan.set", trajectories=[t.name for t in place.scene.case.plan])
    _refused_as(window, loop.ask_raw(encode(asked | {"t": asked["t"] - LIMITS.old_ns})), "stale")
    return window.outcome()


def _refused_as(window: Window, reply: dict, code: str) -> None:
    given = (reply.get("error") or {}).get("code")
    if reply["ok"]:
        window.problems.append("it was granted")
    elif given != code:
        window.problems.append(f"it was refused as {given!r}, not as {code!r}")
    else:
        window.say(time.time(), within_s=1.0)


FAULTS = (
    Fault("bad-request-bytes", "refused with the reason; health and requests go on",
          lambda p: _asked_badly(p, "mode.set", mode=b"\x00shadow")),
    Fault("bad-request-nested", "refused with the reason; health and requests go on",
          lambda p: _asked_badly(p, "plan.set", trajectories=[["T8_left"], ["T8_right"]])),
    Fault("repeated-request", "the same bytes again are refused as `repeated`", _repeated),
    Fault("old-request", "one of a minute ago is refused as `stale`", _old),
)  # fmt: skip
