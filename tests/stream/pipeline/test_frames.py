"""The frame path's loop, with a clock that the test turns."""

from types import SimpleNamespace

import msgpack
import msgspec
import numpy as np
import pytest
import zmq

from fluoronav.site.launch import LaunchFile
from fluoronav.stream.frame import Budget
from fluoronav.stream.pipeline import frames, tool_intake
from fluoronav.stream.pipeline.accounting import FrameAccount
from fluoronav.wire import FrameHeader

PERIOD_S, PROCESSING_S = 0.04, 0.01


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now

    def time_ns(self):
        return round(self.now * 1e9) + 1_700_000_000_000_000_000


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (frames, tool_intake):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Loop:
    """The frame path's loop over a chain that does nothing, fed by hand."""

    def __init__(self, clock, process=lambda frame, budget: {}, idle=lambda frame, budget: None, instruments=None):
        self.clock, self.seen = clock, []
        finds = {"ObservesTools": instruments}
        chain = SimpleNamespace(find=lambda kind: finds.get(kind.__name__), process=self._process, idle=idle)
        self.process = process
        self.sent = []
        publisher = SimpleNamespace(send=lambda *message: self.sent.append(message))
        self.context = zmq.Context()
        wake = self.context.socket(zmq.PAIR)
        wake.bind("inproc://wake")
        self.tools = self.context.socket(zmq.PUB)
        port = self.tools.bind_to_random_port("tcp://127.0.0.1")
        launch = LaunchFile(
            case="embedded", camera="camera.yaml", endpoints={"tools": f"tcp://127.0.0.1:{port}"}
        )  # fmt: skip
        self.account = FrameAccount(32, 32, 10**8)
        self.loop = frames.FrameLoop(self.context, launch, chain, self.account, publisher, "inproc://wake")
        self.seq = 0

    def _process(self, frame, budget):
        self.seen.append(frame)
        return self.process(frame, budget)

    def show(self, counts, ahead_ms=0.0, **header):
        """A frame whose grabber's clock is ahead of ours."""
        t_acq = self.clock.time_ns() + round((ahead_ms - 2) * 1e6)
        size = {"rows": 32, "cols": 32, "dtype": "u2", "bits": 16}
        header = FrameHeader(v=1, source="carm0", seq=self.seq, t_acq=t_acq, **size, **header)
        assert self.account.admit(header, self.clock.time_ns()) is None
        self.loop._one(header, counts, self.clock.time_ns())
        self.seq += 1
        self.clock.now += PERIOD_S
        return self.seen[-1]

    def close(self):
        self.context.destroy(linger=0)


@pytest.fixture
def rig(clock):
    rig = Loop(clock)
    yield rig
    rig.close()


def test_the_same_picture_under_new_numbers_and_times_is_told_from_a_new_one(rig, rng):
    """Regression: last-image hold was `tracking` for minutes."""
    pictures = rng.integers(0, 4000, (6, 32, 32)).astype(np.uint16)
    assert [rig.show(p).unchanged_ms for p in pictures] == [0] * 6
    held = [rig.show(pictures[5].copy()).unchanged_ms for _ in range(5)]
    assert held == pytest.approx([40, 80, 120, 160, 200])
    assert rig.loop.last_frame_at - rig.loop.repeats.changed_at == pytest.approx(0.2)
    assert rig.show(pictures[0]).unchanged_ms == 0


def test_the_overlay_of_a_frame_that_is_sent_again_from_a_recording_says_so(rig, rng):
    for replayed in (False, True):
        rig.show(rng.integers(0, 4000, (32, 32)).astype(np.uint16), replayed=replayed)
    overlays = [message for kind, message, *_ in rig.sent if kind == "overlay"]
    assert [overlay.replayed for overlay in overlays] == [msgspec.UNSET, True]


def test_the_clock_of_the_arm_set_back_by_two_seconds_costs_four_frames_their_time(clock, rng):
    left = []
    rig = Loop(clock, lambda frame, budget: left.append((frame.t_local, clock.time_ns())) or {})
    for k in range(60):
        rig.show(rng.integers(0, 4000, (32, 32)).astype(np.uint16), ahead_ms=0 if k < 30 else -2000)
    late = [k for k, (exposed, now) in enumerate(left) if now - exposed > 50e6]
    assert late == [30, 31, 32, 33]
    assert rig.loop.clock_offset_ms == pytest.approx(2002, abs=1)
    rig.close()


def test_of_a_flood_of_tool_messages_the_newest_are_read_and_the_others_counted(clock, rng):
    """Regression: 3,000 messages a second left 4 overlays in 4 s."""
    observed = []
    rig = Loop(clock, instruments=SimpleNamespace(observe=observed.append, rejected={}))
    wait = zmq.Poller()
    wait.register(rig.loop.tools.socket, zmq.POLLIN)
    for k in range(200):
        tool = {"id": "kwire", "visible": True, "T_tracker_tool": np.eye(4).ravel().tolist(), "error_mm": 0.3}
        t = clock.time_ns() - 10**6 * (200 - k)
        message = {"v": 1, "source": "ndi", "seq": k, "t_acq": t, "tools": [tool]}
        while not wait.poll(0) and k == 0:  # until it is subscribed
            rig.tools.send_multipart([b"tool/ndi", msgpack.packb(message)])
            wait.poll(20)
        rig.tools.send_multipart([b"tool/ndi", msgpack.packb(message)])
    import time

    time.sleep(0.3)
    rig.loop.tools.take()
    assert 0 < len(observed) <= 16
    assert observed[-1].t_acq == max(o.t_acq for o in observed)
    assert rig.loop.tools.skipped >= 100
    rig.close()


def test_idle_work_is_told_how_long_it_is_until_the_next_frame(monkeypatch):
    clock, given, idle = Clock(), [], []
    monkeypatch.setattr(frames, "time", clock)
    monkeypatch.setattr(frames, "Budget", lambda ms: given.append(ms) or Budget(ms))

    def process(frame, budget):
        clock.now += PROCESSING_S
        return {}

    chain = SimpleNamespace(find=lambda kind: None, process=process, idle=lambda frame, budget: idle.append(given[-1]))
    publisher = SimpleNamespace(send=lambda *message: None)
    launch = LaunchFile(case="embedded", camera="camera.yaml")
    context = zmq.Context()
    wake = context.socket(zmq.PAIR)
    wake.bind("inproc://wake")
    account = FrameAccount(4, 4, 10**8)
    loop = frames.FrameLoop(context, launch, chain, account, publisher, "inproc://wake")
    try:
        for seq in range(60):
            header = FrameHeader(
                v=1, source="carm0", seq=seq, t_acq=clock.time_ns(), rows=4, cols=4, dtype="u2", bits=16
            )  # fmt: skip
            assert account.admit(header, clock.time_ns()) is None
            loop._one(header, np.zeros((4, 4), np.uint16), clock.time_ns())
            clock.now += PERIOD_S - PROCESSING_S
    finally:
        context.destroy(linger=0)
    assert len(idle) == 60
    assert idle[-1] == pytest.approx(1000 * (PERIOD_S - PROCESSING_S), abs=0.1)
    assert idle[0] < 0  # nobody knows yet when the next one comes
