"""The frame path's loop, with a clock that the test turns."""

from types import SimpleNamespace

import numpy as np
import pytest
import zmq

from fluoronav.pipeline import frames
from fluoronav.pipeline.accounting import FrameAccount
from fluoronav.pipeline.launch import LaunchFile
from fluoronav.records import Budget
from fluoronav.wire import FrameHeader

PERIOD_S, PROCESSING_S = 0.04, 0.01


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now

    def time_ns(self):
        return round(self.now * 1e9) + 1_700_000_000_000_000_000


def test_idle_work_is_told_how_long_it_is_until_the_next_frame(monkeypatch):
    clock, given, idle = Clock(), [], []
    monkeypatch.setattr(frames, "time", clock)
    monkeypatch.setattr(frames, "Budget", lambda ms: given.append(ms) or Budget(ms))

    def process(frame, budget):
        clock.now += PROCESSING_S
        return {}

    chain = SimpleNamespace(find=lambda kind: None, process=process, idle=lambda budget: idle.append(given[-1]))
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
