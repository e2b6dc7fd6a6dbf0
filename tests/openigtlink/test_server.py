"""The server with a stand-in for the pipeline, and clients that are slow, malformed, several, or gone."""

import contextlib
import logging
import os
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.display.pipeline_stand_in import CASE, StandIn, alert, health, overlay
from tests.openigtlink.conftest import packed

from fluoronav.geometry import Camera
from fluoronav.openigtlink import clients as clients_module
from fluoronav.openigtlink.content import unpack_polydata, unpack_string, unpack_transform
from fluoronav.openigtlink.protocol import MessageReader
from fluoronav.paths import shipped

pytest.importorskip("skimage", reason="the extra `igtl` is not installed")
from fluoronav.openigtlink import server as server_module
from fluoronav.openigtlink.interface import address_of
from fluoronav.openigtlink.server import SlicerServer

KINDS = dict.fromkeys(("TRANSFORM", "STRING", "POLYDATA", "IMAGE"), 1 << 26)
CAMERA = Camera.load(shipped("calibration/demo-carm.yaml"))
TETRAHEDRON = (np.array([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]]), np.array([[0, 1, 2], [0, 1, 3]]))


class Slicer:
    """A client that reads, and keeps what it has read."""

    def __init__(self, port, greeting=b"", buffer=None):
        self._socket = socket.socket()
        if buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(greeting)
        self._reader = MessageReader(KINDS)
        self.messages, self.ended = [], False

    def read(self, seconds=0.02):
        self._socket.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            data = self._socket.recv(1 << 16)
            self.ended |= not data
            self.messages += self._reader.feed(data)
        assert self._reader.lost is None and not self._reader.counts["checksum"]

    def words(self, device):
        return [unpack_string(m.content) for m in self.messages if m.header.name == device]

    def named(self, kind):
        return {m.header.name for m in self.messages if m.header.kind == kind}

    def send(self, data):
        self._socket.sendall(data)

    def close(self):
        self._socket.close()


class Served:
    def __init__(self, case=CASE):
        self.stand_in = StandIn()
        ends = self.stand_in.endpoints
        self.server = SlicerServer(ends["out"], ends["frames"], CAMERA, case, 0)
        self._stop, self._clients, self.k = threading.Event(), [], 0
        self._thread = threading.Thread(target=self.server.run, args=(self._stop.is_set,))
        self._thread.start()
        self.until(lambda: self.heard_by_the_server())

    def heard_by_the_server(self):
        before = self.server.counts["invalid"]
        self.stand_in.send([b"overlay/x", b"\xc1"])
        time.sleep(0.05)
        return self.server.counts["invalid"] > before

    def client(self, **more):
        before = self.server.counts["clients"]
        self._clients.append(Slicer(self.server.port, **more))
        self.until(lambda: self.server.counts["clients"] > before)
        return self._clients[-1]

    def say(self, **changes):
        self.k += 1
        self.stand_in.say("overlay", overlay(self.k, **changes))

    def until(self, condition, *readers, seconds=60.0):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, dict(self.server.counts)
            for reader in readers:
                reader.read()
            if not readers:
                time.sleep(0.01)

    def close(self):
        for client in self._clients:
            client.close()
        self._stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive(), "the server does not end"
        self.server.close()
        self.stand_in.close()


@pytest.fixture
def served(monkeypatch):
    # Surfaces are the display's affair; here small ones will do.
    monkeypatch.setattr(server_module, "surface", lambda thing: TETRAHEDRON)
    opened = []

    def start(case=CASE):
        opened.append(Served(case))
        return opened[-1]

    yield start
    for s in opened:
        s.close()


@pytest.mark.parametrize(
    "text", ["kwire is 2.1 mm from Rückenmark", "œsophage à 2 mm", "导针离脊髓 0.8 毫米", "a" * 70000]
)
def test_an_alert_reaches_every_client_when_it_is_raised_in_every_language(served, text):
    s = served()
    one, other = s.client(), s.client()
    for k in range(20):
        s.stand_in.say("alert", alert(k, "high", text=text))
    s.until(lambda: min(len(c.words("Alert")) for c in (one, other)) == 20, one, other)
    for client in (one, other):
        assert client.words("Alert") == [f"HIGH raised: {text}"[:65535]] * 20 and not client.ended


def test_a_new_client_gets_the_open_alerts_and_the_status(served):
    s = served()
    s.say()
    s.stand_in.say("alert", alert(1, "high"))
    s.stand_in.say("alert", alert(2, "medium", text="over"))
    s.stand_in.say("alert", alert(2, "medium", "cleared", text="over"))
    s.until(s.heard_by_the_server)
    first = s.client()
    s.until(lambda: first.words("Alert") and first.words("Status"), first)
    assert first.words("Alert") == ["HIGH raised: kwire is 0.8 mm from the spinal cord"]
    late = s.client()
    s.until(lambda: late.words("Alert") and late.words("Status"), late)
    first.read(0.2)
    assert len(first.words("Alert")) == 1, "who has heard it does not hear it again"


def test_the_list_of_open_alerts_in_health_is_complete(served):
    s = served()
    slicer = s.client()
    s.stand_in.say("alert", alert(1, "high"))
    s.stand_in.say("health", health(instance="a", alerts=[alert(1, "high"), alert(7, "low", text="unheard")]))
    s.until(lambda: len(slicer.words("Alert")) == 2, slicer)
    assert slicer.words("Alert")[1] == "LOW raised: unheard"
    s.stand_in.say("health", health(instance="b", alerts=[alert(1, "high", text="new")]))
    s.until(lambda: len(slicer.words("Alert")) == 5, slicer)
    assert slicer.words("Alert")[2:] == [
        "HIGH no longer open: kwire is 0.8 mm from the spinal cord", "LOW no longer open: unheard", "HIGH raised: new"
    ]  # fmt: skip


def test_a_client_that_reads_nothing_costs_no_memory_and_stalls_nobody_and_is_cut_off(served, monkeypatch):
    monkeypatch.setattr(clients_module, "LIMITS", replace(clients_module.LIMITS, stuck_s=2.0))
    s = served()
    s.client(buffer=4096)
    reader = s.client()

    def stream():
        s.stand_in.picture(s.k)
        s.say(instruments=[])
        reader.read()
        return s.server.counts["stuck"] == 1

    s.until(stream)
    held = [len(c.newest) for c in s.server._clients._clients.values()]
    assert max(held) < 20 and s.server.counts["skipped"] > 10
    pictures = sum(m.header.kind == "IMAGE" for m in reader.messages)
    s.until(lambda: stream() and sum(m.header.kind == "IMAGE" for m in reader.messages) > pictures)
    assert not reader.ended


def test_a_client_that_ends_in_the_middle_of_a_message_or_sends_noise_disturbs_nobody(served):
    s = served()
    slicer = s.client()
    for rude in (packed("STATUS", "x", bytes(30))[:40], os.urandom(200), b"GET / HTTP/1.1\r\n\r\n" * 9):
        other = s.client()
        other.send(rude)
        other.close()
    s.client().send(packed("IMAGE", "ct", bytes(100_000)))  # Slicer may have something to send
    s.say()
    s.stand_in.say("alert", alert(1, "high"))
    s.until(lambda: slicer.words("Alert") and slicer.named("TRANSFORM"), slicer)
    assert not slicer.ended and s.server.counts["not_openigtlink"] <= 2


def test_clients_beyond_the_limit_are_refused(served, monkeypatch):
    monkeypatch.setattr(clients_module, "LIMITS", replace(clients_module.LIMITS, max_clients=2))
    s = served()
    kept = [s.client(), s.client()]
    third = Slicer(s.server.port)
    s.until(lambda: third.ended, third)
    third.close()
    s.stand_in.say("alert", alert(1, "high"))
    s.until(lambda: all(c.words("Alert") for c in kept), *kept)


def case_called(*names):
    """The embedded case with other names for its structures."""
    structures = tuple(
        type(a)(**{**{f: getattr(a, f) for f in a.__dataclass_fields__}, "name": name})
        for a, name in zip(CASE.structures, names, strict=False)
    )  # fmt: skip
    return type(CASE)(**{**{f: getattr(CASE, f) for f in CASE.__dataclass_fields__}, "structures": structures})


NAMES = [f"vertebra_of_the_thoracic_spine_{k}" for k in (5, 6, 7)] + ["Rückenmark", "Œsophage", "脊髓"]


def test_structures_with_long_or_foreign_names_are_all_in_slicer(served, caplog):
    with caplog.at_level(logging.INFO, "fluoronav"):
        s = served(case_called(*NAMES))
        slicer = s.client()
        s.until(lambda: len(slicer.named("POLYDATA")) >= len(NAMES), slicer)
    names = slicer.named("POLYDATA")
    assert {"Ruckenmark", "OEsophage", "u810Au9AD3", "vertebra_o~c_spine_5"} <= names
    assert all(len(n) <= 20 for n in names)
    assert "vertebra_of_the_thoracic_spine_6 is called vertebra_o~c_spine_6" in caplog.text
    points, triangles = unpack_polydata(next(m.content for m in slicer.messages if m.header.kind == "POLYDATA"))
    assert points.tolist() == (TETRAHEDRON[0] * [-1, -1, 1]).tolist() and triangles.tolist() == TETRAHEDRON[1].tolist()


def test_a_client_of_protocol_3_gets_the_whole_names_as_metadata(served):
    s = served(case_called(*NAMES))
    new = s.client(greeting=packed("STATUS", "Slicer", bytes(30), {}))
    s.until(lambda: set(NAMES) <= {m.name for m in new.messages}, new)
    assert {m.header.version for m in new.messages if m.name in NAMES} == {2}
    s.say()
    s.until(lambda: new.named("TRANSFORM"), new)
    assert {m.header.version for m in new.messages if m.header.kind == "TRANSFORM"} == {1}


def test_three_tools_that_share_twenty_letters_are_three_transforms(served):
    s = served()
    slicer = s.client()
    tools = [f"percutaneous_probe_number_{k}" for k in (1, 2, 3)]
    one = overlay(0)["instruments"][0]
    s.say(instruments=[one | {"id": t, "tip_ct": [40.0 * k, 0, 0]} for k, t in enumerate(tools)])
    s.until(lambda: len(slicer.named("TRANSFORM")) == 4, slicer)
    x = {m.header.name: unpack_transform(m.content)[0, 3] for m in slicer.messages if m.header.kind == "TRANSFORM"}
    x.pop("CameraToPatient")
    assert sorted(x.values()) == [-80.0, -40.0, 0.0] and all(name.endswith("ToPatient") for name in x)


def test_an_invalid_number_costs_its_own_pose_and_nothing_else(served):
    s = served()
    slicer = s.client()
    good = overlay(0)["instruments"][0]
    bad = [{"tip_ct": [np.nan, 0, 0]}, {"axis_ct": [0, 0, 0]}, {"tip_ct": [1, 2]}, {"tip_ct": ["a", 1, 2]}]
    s.say(instruments=[*(good | {"id": f"bad{k}"} | b for k, b in enumerate(bad)), good, 5, {}])
    s.until(lambda: "kwireToPatient" in slicer.named("TRANSFORM") and slicer.words("Status"), slicer)
    assert slicer.named("TRANSFORM") == {"CameraToPatient", "kwireToPatient"}
    for registration in ({"T_camera_ct": [np.inf] * 16, "tre_image_mm": 1}, {"T_camera_ct": [1]}, 7, {}):
        s.say(registration=registration)
    for rows, cols in ((0, 0), (2, 3), (-1, -1), (70000, 1)):
        head = {"rows": rows, "cols": cols, "dtype": "u1"}
        s.stand_in.say("frame", head, bytes(70000 if rows == 70000 else 5))
    s.stand_in.send([b"alert/x"])
    s.stand_in.say("alert", {"priority": 5})
    s.stand_in.say("health", {"alerts": [5], "case": 7})
    s.stand_in.say("alert", alert(1, "high"))
    s.stand_in.say("health", health(alerts=[{"id": "a1"}]))
    s.client()
    s.say(status="lost", registration=None)
    s.until(lambda: slicer.words("Status")[-1].startswith(("lost", "another")), slicer)
    assert not slicer.ended and s.server.counts["invalid"] > 8


def test_when_the_pipeline_falls_silent_the_status_says_that_what_is_shown_is_old(served):
    s = served()
    slicer = s.client()
    s.say()
    s.until(lambda: slicer.words("Status"), slicer)
    assert slicer.words("Status")[0].startswith("tracking, 95 % within")
    s.until(lambda: slicer.words("Status")[-1].startswith("nothing from the pipeline"), slicer)
    s.say(mode="shadow", registration=overlay(0)["registration"] | {"accepted": False})
    s.until(lambda: slicer.words("Status")[-1].startswith("tracking"), slicer)
    assert slicer.words("Status")[-1].endswith("mm across, not accepted, shadow mode")


def test_a_held_pose_carries_the_time_at_which_it_was_measured(served):
    s = served()
    slicer = s.client()
    s.say(registration=overlay(0)["registration"] | {"age_ms": 5000.0})
    s.until(lambda: len(slicer.named("TRANSFORM")) == 2, slicer)
    t = {m.header.name: m.header.t_ns for m in slicer.messages}
    assert t["kwireToPatient"] - t["CameraToPatient"] == pytest.approx(5e9, rel=0.1)


def test_when_another_case_is_guided_its_poses_are_not_shown_over_this_ones_structures(served):
    s = served()
    slicer = s.client()
    s.stand_in.say("health", health(case="another@1234"))
    s.until(lambda: any("another case is guided" in w for w in slicer.words("Status")), slicer)
    slicer.messages.clear()
    for _ in range(5):
        s.say()
        s.stand_in.picture(s.k)
        slicer.read()
    s.until(lambda: slicer.named("POLYDATA"), slicer)
    surfaces = [m for m in slicer.messages if m.header.kind == "POLYDATA"]
    assert all(len(unpack_polydata(m.content)[0]) == 0 for m in surfaces[-len(CASE.structures) :])
    assert not slicer.named("TRANSFORM") and not slicer.named("IMAGE")
    s.stand_in.say("health", health())
    s.until(lambda: s.say() or slicer.named("TRANSFORM"), slicer)


def test_a_port_in_use_and_an_unknown_interface_are_named(served):
    s = served()
    ends = s.stand_in.endpoints
    with pytest.raises(OSError, match=rf"port {s.server.port} of 127.0.0.1 is already in use.*--serve"):
        SlicerServer(ends["out"], ends["frames"], CAMERA, CASE, s.server.port)
    with pytest.raises(ValueError, match=r"--interface nope9: this computer has .*lo"):
        address_of("nope9")
    assert address_of("lo") == "127.0.0.1" == address_of("127.0.0.1")


def test_a_tool_that_is_not_seen_any_more_is_named_in_the_status(served):
    s = served()
    slicer = s.client()
    s.say()
    s.until(lambda: slicer.words("Status"), slicer)
    assert "not seen" not in slicer.words("Status")[-1]
    s.until(lambda: s.say(instruments=[]) or slicer.words("Status")[-1].endswith("not seen: kwire"), slicer)
    s.until(lambda: s.say() or slicer.words("Status")[-1].endswith("mm across"), slicer)
