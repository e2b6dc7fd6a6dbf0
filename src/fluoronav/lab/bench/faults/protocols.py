"""OpenIGTLink from faulty gateways, and to a client that must not lose an alert."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import yaml
import zmq

from fluoronav.lab.bench.faults.gateway import (
    Client,
    Gateway,
    Play,
    at,
    message,
    tracking_data,
    tracking_rows,
    transform,
)
from fluoronav.lab.bench.faults.inputs import launch_file
from fluoronav.lab.bench.faults.place import Place, write_case
from fluoronav.lab.bench.faults.row import BenchError, Fault, NotHere, Outcome
from fluoronav.lab.process import end_process
from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.paths import embedded_case
from fluoronav.wire import encode, subscriber
from fluoronav.wire.values import PROTOCOL_VERSION


@dataclass(frozen=True)
class GatewayFaults:
    """How the faults are made, and what is allowed; chosen."""

    each_s: float = 0.02  # between messages of the gateway
    starts_s: float = 60.0  # until a bridge connects or serves
    ends_s: float = 5.0  # after SIGTERM
    played_s: float = 5.0  # of each fault
    back_within_s: float = 6.0  # until the bridge is connected again
    most_reconnects: int = 10  # in `played_s`


LIMITS = GatewayFaults()
_TEXT = "kwire is 2.1 mm from the Rückenmark"
_LONG = ("vertebra_thoracica_octava_left", "vertebra_thoracica_octava_right", "vertebra_thoracica_octava_body")


class Bridge:
    """`fluoronav bridge igtl` between a gateway and a subscriber.

    Parameters
    ----------
    folder : Path
    play : callable
        What the gateway sends.
    """

    def __init__(self, folder: Path, play: Play) -> None:
        self.gateway = Gateway(play)
        self.begin = time.time()
        endpoint = free_endpoints("tcp", folder)["tools"]
        self._log = folder / "bridge.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fluoronav", "bridge", "igtl", "--tracker", f"127.0.0.1:{self.gateway.port}",
                 "--endpoint", endpoint], stdout=log, stderr=log,
            )  # fmt: skip
        self._context = zmq.Context()
        self._socket = subscriber(self._context, endpoint, ["tool/"])
        end = time.time() + LIMITS.starts_s
        while not self.gateway.connections:
            if time.time() > end or self._process.poll() is not None:
                self.close()
                raise _not_started("connect", self.log)
            time.sleep(0.02)
        self.begin = time.time()

    @property
    def log(self) -> str:
        """Its output."""
        return self._log.read_text(errors="replace").strip()

    def tools(self, seconds: float) -> list[tuple[float, dict[str, Any]]]:
        """Published entries of tools, with their time of reception."""
        out, end = [], time.time() + seconds
        while time.time() < end:
            if self._socket.poll(50):
                body = self._socket.recv_multipart()[1]
                out += [(time.time(), tool) for tool in msgpack.unpackb(body)["tools"]]
        return out

    def ends(self) -> bool:
        """Whether SIGTERM ends it."""
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LIMITS.ends_s)
        return self._process.poll() is not None

    def close(self) -> None:
        """Ends everything."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.gateway.close()
        if hasattr(self, "_socket"):
            self._socket.close()
            self._context.term()


@contextlib.contextmanager
def _bridge(place: Place, play: Play) -> Iterator[Bridge]:
    bridge = Bridge(place.folder(), play)
    try:
        yield bridge
    finally:
        bridge.close()


def _not_started(what: str, log: str) -> BenchError | NotHere:
    """Why a bridge does not run: a missing extra, or an error."""
    last = log.strip()[-200:]
    return NotHere(last) if "needs the extra" in log else BenchError(f"the bridge does not {what}: {last}")


def _again_and_again(make: Callable[[int], bytes]) -> Play:
    def play(send, connection):
        for k in range(3000):
            send(make(k))
            time.sleep(LIMITS.each_s)

    return play


def _stylus(k: int) -> bytes:
    return message("TRANSFORM", "StylusToTracker", transform(at(100, 0.01 * (k % 7), -900)))


def _wrong_crc(place: Place) -> Outcome:
    def make(k: int) -> bytes:
        good = bytearray(_stylus(k))
        if k % 50 >= 25:
            good[58 + 36] ^= 0x80  # one bit on the way: the sign of x
        return bytes(good)

    with _bridge(place, _again_and_again(make)) as bridge:
        x = [t["T_tracker_tool"][3] for _, t in bridge.tools(LIMITS.played_s) if t["T_tracker_tool"]]
        stopped = bridge.ends()
    wrong = sum(v < 0 for v in x)
    outcome = Outcome(seen=f"{len(x) - wrong} right poses, {wrong} wrong ones")
    if wrong:
        outcome.problems.append("poses with a wrong checksum are published")
    if len(x) - wrong < 20:
        outcome.problems.append("the right ones are not")
    if not stopped:
        outcome.problems.append("SIGTERM does not end the bridge")
    return outcome


def _out_of_view(place: Place) -> Outcome:
    def make(k: int) -> bytes:
        tools = {
            "StylusToTracker": at(100, 50 + 0.01 * (k % 5), -950),
            "ReferenceToTracker": at(10, 0.01 * (k % 7), -900),
        }
        status = {"StylusToTrackerStatus": "OUT_OF_VIEW", "ReferenceToTrackerStatus": "OK"}
        return message("TDATA", "TDATA_2Elem", tracking_data(tools), status)

    with _bridge(place, _again_and_again(make)) as bridge:
        tools = [t for _, t in bridge.tools(LIMITS.played_s)]
    shown = {id: sum(t["visible"] for t in tools if t["id"] == id) for id in ("Stylus", "Reference")}
    outcome = Outcome(seen=", ".join(f"{name} visible {n} times" for name, n in shown.items()))
    if shown["Stylus"]:
        outcome.problems.append("a tool out of view is published as visible")
    if not shown["Reference"]:
        outcome.problems.append("the one in view is not")
    return outcome


def _names_collide(place: Place) -> Outcome:
    """Names of more than 20 letters: two tools of one TDATA, and three structures that are sent out."""
    left, right = "PedicleProbeStandardLeftToTracker", "PedicleProbeStandardRightToTracker"

    def make(k: int) -> bytes:
        rows = [(left[:20], at(-100, 0.01 * (k % 5), -950)), (right[:20], at(100, 0.01 * (k % 7), -900))]
        return message("TDATA", "TDATA_2Elem", tracking_rows(rows))

    with _bridge(place, _again_and_again(make)) as bridge:
        tools = [t for _, t in bridge.tools(LIMITS.played_s) if t["visible"] and t["T_tracker_tool"]]
    places: dict[str, set[int]] = {}
    for t in tools:
        places.setdefault(t["id"], set()).add(round(t["T_tracker_tool"][3]))
    outcome = Outcome(seen=f"in: {len(tools)} visible poses")
    hopping = [name for name, xs in places.items() if len(xs) > 1]
    if hopping:
        outcome.problems.append(f"one tool {hopping[0]!r} at two places")
    with _slicer(place, dict(zip(("vertebrae_T6", "vertebrae_T7", "vertebrae_T8"), _LONG, strict=True))) as (
        client,
        say,
    ):
        say(8.0, "")
        names = [name for kind, name, _ in client.heard if kind == "POLYDATA"]
    outcome.seen += f"; out: {len(set(names))} names for 7 structures"
    if len(set(names)) < 7:
        outcome.problems.append("structures share a name")
    return outcome


def _dies_mid_header(place: Place) -> Outcome:
    def play(send, connection):
        if connection == 1:
            for k in range(50):
                send(_stylus(k))
                time.sleep(LIMITS.each_s)
            send(_stylus(0)[:30])
            return
        _again_and_again(_stylus)(send, connection)

    with _bridge(place, play) as bridge:
        before = bridge.tools(3.0)
        after = bridge.tools(LIMITS.back_within_s)
        stopped = bridge.ends()
        connections = bridge.gateway.connections
    outcome = Outcome(seen=f"{len(before)} poses before, {len(after)} later, {connections} connections")
    if after and connections > 1:
        outcome.recovered_after_ms = (after[0][0] - before[-1][0]) * 1000 if before else None
    if connections < 2 or len(after) < 20:
        outcome.problems.append(f"not connected again within {LIMITS.back_within_s:.0f} s")
    if not stopped:
        outcome.problems.append("SIGTERM does not end the bridge")
    return outcome


def _garbage(place: Place) -> Outcome:
    def play(send, connection):
        for _ in range(100):
            send(os.urandom(512))
            time.sleep(LIMITS.each_s)

    with _bridge(place, play) as bridge:
        tools = bridge.tools(LIMITS.played_s)
        connections = bridge.gateway.connections
        tracebacks = bridge.log.count("Traceback")
        stopped = bridge.ends()
    outcome = Outcome(
        seen=f"{connections} connections in {LIMITS.played_s:.0f} s, {len(tools)} poses, {tracebacks} tracebacks"
    )
    if connections > LIMITS.most_reconnects:
        outcome.problems.append("it connects again without end")
    if tools:
        outcome.problems.append("poses are published")
    if tracebacks:
        outcome.problems.append("tracebacks in its log")
    if not stopped:
        outcome.problems.append("SIGTERM does not end the bridge")
    return outcome


def _umlaut(place: Place) -> Outcome:
    with _slicer(place, {"spinal_cord": "Rückenmark"}) as (client, say):
        say(3.0, "")
        begin, ends = time.time(), client.ends
        say(5.0, _TEXT)
        alerts = [body for kind, name, body in client.heard if kind == "STRING" and name == b"Alert"]
        ended = client.ends - ends
    outcome = Outcome(seen=f"{len(alerts)} alerts, the connection ended {ended} times")
    if ended:
        outcome.problems.append("Slicer is disconnected")
    # With its umlaut, or in letters that OpenIGTLink's ASCII has.
    if not any(b"ckenmark" in body for body in alerts):
        outcome.problems.append("no alert is delivered")
    else:
        outcome.said_after_ms = (time.time() - begin) * 1000
    return outcome


@contextlib.contextmanager
def _slicer(place: Place, renamed: dict[str, str]) -> Iterator[tuple[Client, Callable[[float, str], None]]]:
    """`fluoronav bridge igtl --serve` on a case with renamed structures: a client, and what sends an alert."""
    folder = place.folder()
    content = yaml.safe_load(embedded_case().read_text(encoding="utf-8"))
    rename = lambda name: renamed.get(name, name)  # noqa: E731
    structures = [s | {"name": rename(s["name"])} for s in content["structures"]]
    rigid = {"structures": [rename(s) for s in content["rigid"]["structures"]]}
    case = write_case(folder / "case", structures=structures, rigid=rigid)
    launch = launch_file(folder, case=str(case))
    endpoints = yaml.safe_load(launch.read_text())["endpoints"]
    port = int(endpoints["requests"].rsplit(":", 1)[1])  # free, and unused here
    context = zmq.Context()
    out = context.socket(zmq.PUB)
    out.setsockopt(zmq.LINGER, 0)
    out.bind(endpoints["out"])
    log = folder / "serve.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fluoronav", "bridge", "igtl", "--serve", str(port), "--launch", str(launch)],
            stdout=file, stderr=file,
        )  # fmt: skip
    client = None

    def say(seconds: float, alert: str) -> None:
        end, k = time.time() + seconds, 0
        while time.time() < end:
            out.send_multipart([b"overlay/carm0", encode(_overlay(k))])
            if alert and k % 10 == 5:
                out.send_multipart([b"alert/carm0", encode(_alert(k, alert))])
            k += 1
            time.sleep(0.05)

    try:
        end = time.time() + LIMITS.starts_s
        while "serving" not in log.read_text(errors="replace"):
            if time.time() > end or process.poll() is not None:
                raise _not_started("serve", log.read_text(errors="replace"))
            time.sleep(0.05)
        client = Client(port)
        yield client, say
    finally:
        if client is not None:
            client.close()
        end_process(process, LIMITS.ends_s)
        out.close()
        context.term()


def _overlay(k: int) -> dict[str, Any]:
    """A complete overlay."""
    kwire = {
        "id": "kwire", "kind": "k-wire", "tip_px": None, "tail_px": None, "tip_ct": [5.0, 75.0, -158.0],
        "axis_ct": [0.0, -1.0, 0.0], "sigma_mm": 0.3, "origin": "tracker", "age": 0, "method": None, "shaft_px": None,
    }  # fmt: skip
    now = time.time_ns()
    return {
        "v": PROTOCOL_VERSION, "source": "carm0", "seq": k, "t_acq": now, "t_recv": now, "t_sent": now,
        "deadline_ms": 33.3, "missed": False, "dropped": {"network": 0, "overload": 0, "invalid": 0}, "stages": {},
        "status": "tracking", "registration": None, "instruments": [kwire], "distances": [], "plan": [], "outlines": [],
        "models": {}, "mode": "live",
    }  # fmt: skip


def _alert(k: int, text: str) -> dict[str, Any]:
    """A complete alert."""
    now = time.time_ns()
    return {
        "v": PROTOCOL_VERSION, "source": "carm0", "id": f"proximity/{k}", "seq": k, "t_acq": now, "t_raised": now,
        "state": "raised", "priority": "high", "kind": "proximity", "instrument": "kwire", "structure": "Rückenmark",
        "distance_mm": 2.1, "lower_mm": 1.6, "threshold_mm": 1.0, "text": text,
    }  # fmt: skip


FAULTS = (
    Fault("igtl-wrong-crc", "not published; the right ones are", _wrong_crc),
    Fault("igtl-out-of-view", "published as not visible", _out_of_view),
    Fault("igtl-names-collide", "no tool at two places; each structure has a name of its own", _names_collide),
    Fault("igtl-gateway-dies-mid-header", "connected again within 6 s; SIGTERM ends the bridge", _dies_mid_header),
    Fault("igtl-garbage", f"at most {LIMITS.most_reconnects} connections in 5 s, nothing published", _garbage),
    Fault("igtl-umlaut-alert", "the alert is delivered, the connection stays", _umlaut),
)
