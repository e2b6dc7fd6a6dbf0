"""Processes that are killed, loaded, short of disk, or started with an unsafe launch file."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgpack
import yaml
import zmq

from fluoronav.lab.bench.faults.clocks import busy
from fluoronav.lab.bench.faults.command import Ended, fluoronav, refusal
from fluoronav.lab.bench.faults.inputs import launch_file
from fluoronav.lab.bench.faults.loop import Loop, request
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import BenchError, Fault, NotHere, Outcome
from fluoronav.lab.bench.faults.window import Window
from fluoronav.site.audit import AuditError, verify_trail
from fluoronav.wire import encode


@dataclass(frozen=True)
class ProcessFaults:
    """How the faults are made, and what is allowed; chosen."""

    load_s: float = 10.0  # of two busy programs
    degraded: float = 0.5  # fraction of the overlays that may say degraded without a reason
    disk_kb: int = 128  # size of the disk that is filled
    orphan_s: float = 6.0  # for a recorder whose pipeline was killed
    slow_viewer_s: float = 15.0  # of a display that takes no picture
    slow_viewer_mb: float = 120.0  # that the pipeline may grow by


LIMITS = ProcessFaults()


def _start(place: Place) -> Outcome:
    """No fault: a start with its search must not break a rule."""
    loop = place.fresh()
    window = Window(loop)
    loop.start()
    window.recover(60.0, since=window.begin)
    window.last(3)
    outcome = window.outcome()
    outcome.lost_frames = None  # the pipeline was not running
    return outcome


def _killed(place: Place) -> Outcome:
    loop = place.loop()
    _granted(loop, "case.load", case="second")
    loop.wait(lambda: loop.health().get("case_name") == "second", 60, "load the second case")
    loop.confirm()
    _granted(loop, "mode.set", mode="shadow")
    _granted(loop, "plan.set", trajectories=["T8_right"])
    loop.wait(lambda: loop.steady() and loop.alarmed(), 60, "track the second case")
    _granted(loop, "registration.accept")
    time.sleep(1.5)
    before = loop.health()
    open_before = {held.structure for held in loop.judge.open.values()}
    window = Window(loop)
    loop.stop(signal.SIGKILL)
    window.over()
    try:
        # As a supervisor does: nobody confirms the patient.
        loop.start_unconfirmed()
        health = loop.health()
        session = health.get("session") or {}
        window.say(loop.since(window.begin, "health")[0].t, within_s=None)
        window.check(health["case"] == before["case"], f"it comes up with the case {health['case']}")
        window.check(health["mode"] == "shadow", f"it comes up {health['mode']}")
        window.check(session.get("confirmed") is False, "health does not say that the patient is unconfirmed")
        window.check(session.get("restored") is True, "health does not say that the session was restored")
        window.check(session.get("plan") == ["T8_right"], f"the plan is {session.get('plan', 'not said')}")
        same = health.get("instance") == before.get("instance")
        window.check(not same, "its instance is the same as before, or is not said")
        window.recover(60.0)
        window.last(1.5)
        listed = {a["structure"] for a in loop.health().get("alerts", []) if a["kind"] == "proximity"}
        window.check(open_before <= listed, f"open before: {sorted(map(str, open_before))}, listed: {sorted(listed)}")
        plans = {p["trajectory"] for h in loop.since(time.time() - 1, "overlay") for p in h.message["plan"]}
        window.check(plans == {"T8_right"}, f"it shows the plan {sorted(plans)}")
        live = loop.ask("mode.set", mode="live")
        window.check(
            not live["ok"] and live["error"]["code"] == "not_confirmed", "live was granted for an unconfirmed patient"
        )
        return window.outcome()
    finally:
        place.end("main")  # the next row begins with the first case again


def _recorder(place: Place) -> Outcome:
    loop = place.loop()
    path = Path(_granted(loop, "record.start")["path"])
    loop.wait(path.exists, 10, "begin the recording")
    time.sleep(1.5)
    window = Window(loop)
    loop.stop(signal.SIGKILL)
    end, size, ended = time.time() + LIMITS.orphan_s, path.stat().st_size, None
    last_grown = time.time()
    while time.time() < end:
        time.sleep(0.2)
        if path.stat().st_size > size:
            size, last_grown = path.stat().st_size, time.time()
    if time.time() - last_grown > 2.5:
        ended = last_grown
    window.over()
    loop.start()
    said = loop.health().get("recording")
    if ended is None and not said:
        window.problems.append("it goes on writing, and the new pipeline says that nothing is recorded")
    window.say(ended or (time.time() if said else None), within_s=None)
    window.seen.append("the recorder ended with its pipeline" if ended else f"health says {said!r} is recorded")
    window.recover(20.0)
    outcome = window.outcome()
    if ended is None:
        place.end("main")
        _end_recorder(path)
    return outcome


def _end_recorder(path: Path) -> None:
    """Ends the recorder of a file, found by its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(path).encode() in words:
                subprocess.run(["kill", folder.name], check=False)


def _granted(loop: Loop, op: str, **args) -> dict:
    reply = loop.ask(op, **args)
    if not reply["ok"]:
        raise BenchError(f"{op} was refused: {reply['error']['text']}")
    return reply["result"]


def _all_stages(place: Place) -> Outcome:
    loop = place.all_stages()
    window = Window(loop)
    with busy(2):
        window.last(LIMITS.load_s)
        statuses = [h.message["status"] for h in loop.since(time.time() - LIMITS.load_s / 2, "overlay")]
        said = min((m for m in (window.health(), window.alert("latency", "registration_lost")) if m), default=None)
        window.say(said, within_s=None)
        degraded = statuses.count("degraded") / max(len(statuses), 1)
        window.seen.append(f"degraded in {degraded:.0%} of the frames under load")
        if degraded > LIMITS.degraded and said is None:
            window.problems.append("nothing says that the guidance is degraded")
    window.over()
    window.recover(20.0)
    return window.outcome()


def _slow_viewer(place: Place) -> Outcome:
    """A display that subscribes to images and takes none, as with a hanging browser."""
    loop = place.all_stages()
    window = Window(loop)
    before = loop.rss_mb()
    if not before:
        raise NotHere("this system does not tell a process's memory")
    socket = loop.subscriber(b"view/", held=1)
    socket.setsockopt(zmq.RCVBUF, 2**16)
    grown = 0.0
    usual = loop.fps
    loop.at(30.0)
    try:
        end = time.monotonic() + LIMITS.slow_viewer_s
        while time.monotonic() < end:
            window.last(0.5)
            grown = max(grown, loop.rss_mb() - before)
    finally:
        loop.at(usual)
        socket.close()
    window.over()
    window.seen.append(f"{grown:.0f} MB more in {LIMITS.slow_viewer_s:.0f} s at 30 frames a second")
    window.check(grown < LIMITS.slow_viewer_mb, "the pipeline keeps its pictures")
    window.recover(20.0)
    return window.outcome()


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A disk of some 100 kB in memory.

    Raises
    ------
    NotHere
        Only a privileged user may mount one.
    """
    at = folder / "small-disk"
    at.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={LIMITS.disk_kb}k", "tmpfs", str(at)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        raise NotHere("mounting a small disk needs root")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False)


def _fill(path: Path) -> None:
    """Writes a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)


def _disk_full(place: Place) -> Outcome:
    place.end("main")
    with _small_disk(place.folder()) as disk:
        loop = Loop(place.folder(), place.scene, place.fps, audit=str(disk / "audit"))
        try:
            loop.start()
            _granted(loop, "mode.set", mode="shadow")
            filler = disk / "filler"
            window = Window(loop)
            _fill(filler)
            # A line takes some hundred bytes: what is left of the trail's last page fills up, too.
            alert = next((key[1] for key in loop.judge.open), "")
            for _ in range(16):
                with contextlib.suppress(BenchError):
                    loop.ask("plan.set", trajectories=["T8_left"])
            safe = {"mode.set": {"mode": "shadow"}, "alert.acknowledge": {"alert": alert}, "registration.reject": {}}
            refused = [op for op, args in safe.items() if not loop.ask(op, **args)["ok"]]
            window.check(not refused, f"refused while the disk is full: {', '.join(refused)}")
            window.last(1)
            window.say(window.alert("storage"), what="that the disk is full")
            filler.unlink()
            window.over()
            loop.ask("mode.set", mode="shadow")
            time.sleep(2.5)
            loop.ask("mode.set", mode="shadow")
            for trail in sorted((disk / "audit").glob("*.jsonl")):
                try:
                    window.seen.append(f"{verify_trail(trail)} events are kept")
                except AuditError as error:
                    window.problems.append(str(error).split(": ", 1)[-1][:160])
            window.over_ms = (time.time() - window.ended) * 1000
            outcome = window.outcome()
            _fill(filler)
            if not loop.ask("stop")["ok"]:
                outcome.problems.append("stop is refused while the disk is full")
            return outcome
        finally:
            loop.close()


def _source_escape(place: Place) -> Outcome:
    """A source's name becomes part of the trail's file name: with path separators it would leave the folder."""
    folder = place.folder()
    inner = folder / "a" / "b" / "c"
    inner.mkdir(parents=True)
    launch = launch_file(inner, source="../../../../escaped")
    with (folder / "printed.txt").open("wb") as out:
        command = [sys.executable, "-m", "fluoronav", "run", str(launch)]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    begin = time.time()
    try:
        granted = _ask_for_shadow(yaml.safe_load(launch.read_text())["endpoints"]["requests"], process)
    finally:
        process.kill()
        process.wait()
    said = (folder / "printed.txt").read_text(errors="replace")
    if not granted:
        return refusal(Ended(process.returncode, said, time.time() - begin, 0.0), "source")
    outside = [p.relative_to(folder) for p in folder.rglob("*escaped*") if inner / "audit" not in p.parents]
    if outside:
        return Outcome([f"it starts, and writes {outside[0].name} outside the trail's folder"])
    return Outcome(seen="it starts, and writes inside the trail's folder")


def _ask_for_shadow(endpoint: str, process: subprocess.Popen[bytes]) -> bool:
    """Whether a starting pipeline grants a request that it has to log; false if it ends instead."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    end, granted = time.time() + 60, False
    try:
        while not granted and process.poll() is None and time.time() < end:
            socket.send_multipart([b"", encode(request("mode.set", mode="shadow"))])
            if socket.poll(1000):
                reply = msgpack.unpackb(socket.recv_multipart()[-1])
                granted = reply["ok"] or reply["error"]["code"] != "not_ready"
                time.sleep(0.2)
    finally:
        socket.close()
        context.term()
    return granted


def _remote_requests(place: Place) -> Outcome:
    folder = place.folder()
    launch = launch_file(folder)
    content = yaml.safe_load(launch.read_text())
    content["endpoints"]["requests"] = content["endpoints"]["requests"].replace("127.0.0.1", "0.0.0.0")
    launch.write_text(yaml.safe_dump(content))
    ended = fluoronav("run", launch, folder=folder, until="ready after")
    if "ready after" in ended.text:
        return Outcome(["it starts, and grants requests to every computer"])
    return refusal(ended, "allow_unauthenticated", "loopback", "other computers")


STREAMED = (
    Fault("start-and-search", "no word of running before it tracks; tracks within 60 s", _start),
    Fault("recorder-outlives-pipeline", "ends with it, or is said by the new one", _recorder),
    Fault(
        "pipeline-killed-and-restarted",
        "the second case, shadow, its plan, unconfirmed, another instance, open alarms listed",
        _killed,
    ),
)
WITH_ALL_STAGES = (
    Fault("all-stages-under-load", "not degraded for long without a word; measured again within 20 s", _all_stages),
    Fault("slow-view-subscriber", f"less than {LIMITS.slow_viewer_mb:.0f} MB more", _slow_viewer),
)
ALONE = (
    Fault("audit-disk-full", "the safe direction is granted; said within 2 s; the trail stays whole", _disk_full),
    Fault("source-path-escape", "refused with the key, or kept inside the folder", _source_escape),
    Fault("remote-requests-refused", "refused with the key that allows it", _remote_requests),
)
