"""Stages rest while the computer does not hold them, one after the other, say why, and come back."""

from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest

from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.pipeline.chain import Chain
from fluoronav.stream.pipeline.rests import LIMITS, Rests
from fluoronav.stream.pipeline.standing import RecentFrames
from fluoronav.stream.stage import MayRest

FRAME_S, DEADLINE_MS = 1 / 30, 33.3


class Simulated:
    """A stage that takes its time, by the clock of the test."""

    def __init__(self, name, takes_ms, writes=(), engine="cpu"):
        self.name, self.takes_ms, self.engine = name, takes_ms, engine
        self.reads, self.writes = frozenset(), frozenset(writes)
        self.worked = 0

    def prepare(self, case, camera, progress): ...

    def process(self, frame, budget):
        self.worked += 1

    def idle(self, frame, budget): ...

    def close(self): ...


class Optional(Simulated):
    def __init__(self, *args, missing="", leaves_out=0.0, **more):
        super().__init__(*args, **more)
        self.rests = self.left_out = self.due = 0
        self.missing, self.leaves_out = missing, leaves_out  # the latter: part of the frames

    def process(self, frame, budget):
        self.due += self.leaves_out
        if self.due >= 1:
            self.due -= 1
            self.left_out += 1
        else:
            self.worked += 1

    def rest(self, frame):
        self.rests += 1


class Stream:
    """Frames at 30 a second through a chain; what each takes is the sum of what has worked on it."""

    def __init__(self, *stages):
        self.chain, self.now = Chain(stages), 1000.0
        self.loop = SimpleNamespace(
            recent=RecentFrames(), latencies_ms=np.zeros(512), latency_count=0, period_s=FRAME_S, last_frame_at=0.0,
            commands=deque(),
        )  # fmt: skip
        self.work = SimpleNamespace(chain=self.chain, loop=self.loop, wake=lambda: None)
        self.rests = Rests(DEADLINE_MS)

    def run(self, seconds):
        for _ in range(round(seconds / FRAME_S)):
            before = {s.name: s.worked for s in self.chain.stages}
            self.chain.process(FrameRecord.of_counts(np.zeros((2, 2), np.uint16)), Budget(DEADLINE_MS))
            took_ms = sum(s.takes_ms for s in self.chain.stages if s.worked > before[s.name])
            self.now += FRAME_S
            self.loop.last_frame_at = self.now
            self.loop.recent.taken(self.now, took_ms > DEADLINE_MS, 0)
            self.loop.latencies_ms[self.loop.latency_count % 512] = took_ms
            self.loop.latency_count += 1
            self.rests.check(self.work, self.now)
            while self.loop.commands:
                self.loop.commands.popleft()()
        return self.rests.resting


@pytest.fixture
def streams():
    opened = []

    def start(*stages):
        opened.append(Stream(*stages))
        return opened[-1]

    yield start
    for stream in opened:
        stream.chain.close()


def test_a_computer_that_holds_all_stages_lets_none_rest(streams):
    view = Optional("view", 12.0)
    assert streams(Simulated("registration", 12.0), view).run(60) == {}
    assert view.rests == 0


def test_a_slow_stage_rests_with_the_reason_and_no_frame_is_late_any_more(streams):
    slow = Optional("view", 24.0)
    stream = streams(Simulated("registration", 12.0), slow)
    assert stream.run(5) == {"view": "the frame time is 33 ms, the chain needs 36 ms"}
    worked = slow.worked
    stream.run(5)
    assert slow.worked == worked and slow.rests > 100
    assert stream.loop.recent.since(stream.now - 5).late == 0


def test_the_last_of_the_chain_rests_first_and_the_next_only_if_that_does_not_help(streams):
    stages = Simulated("registration", 12.0), Optional("detection", 25.0), Optional("view", 2.0)
    stream = streams(*stages)
    assert list(stream.run(5)) == ["view"]
    assert list(stream.run(5)) == ["detection", "view"]


def test_a_stage_comes_back_when_the_computer_holds_it_again(streams):
    slow = Optional("view", 24.0)
    stream = streams(Simulated("registration", 12.0), slow)
    assert stream.run(5)
    slow.takes_ms = 5.0
    assert stream.run(LIMITS.calm_s - 4), "not at once"
    assert stream.run(8) == {}
    worked = slow.worked
    stream.run(5)
    assert slow.worked == worked + 150


def test_a_chain_that_leaves_no_room_keeps_its_stages_at_rest(streams):
    stream = streams(Simulated("registration", 30.0), Optional("view", 24.0))
    assert stream.run(120)


def test_a_stage_that_does_not_last_waits_twice_as_long_each_time(streams):
    slow = Optional("view", 24.0)
    stream = streams(Simulated("registration", 12.0), slow)
    stream.run(400)
    late = stream.loop.recent.since(stream.now - 30).late
    assert slow.worked < 0.15 * 400 * 30 and late < 120
    assert stream.rests._histories["view"].calm_s >= 8 * LIMITS.calm_s


def test_skipped_frames_count_as_late_ones_do(streams):
    stream = streams(Optional("view", 2.0))
    stream.run(4)
    stream.loop.recent.taken(stream.now, False, 20, 20)
    assert stream.run(1.1)["view"].startswith("20 of 11")


def test_frames_that_are_lost_on_the_way_are_no_load(streams):
    stream = streams(Optional("view", 2.0))
    stream.run(4)
    stream.loop.recent.taken(stream.now, False, 20)
    assert stream.run(1.1) == {}


def test_what_is_missing_is_said_at_once_and_not_put_to_rest(streams):
    stream = streams(Simulated("registration", 40.0), Optional("detection", 0.0, missing="no engine"))
    assert stream.run(0.1) == stream.run(10) == {"detection": "no engine"}
    assert stream.chain._resting == frozenset()


def test_a_stage_that_leaves_most_frames_out_by_itself_is_said_to_rest_and_goes_on_trying(streams):
    stage = Optional("detection", 5.0, leaves_out=0.9)
    stream = streams(Simulated("registration", 12.0), stage)
    assert stream.run(2) == {}, "two slow seconds are not said"
    why = {"detection": "most frames leave it too little time: it takes 5 ms"}
    assert stream.run(4) == why
    worked = stage.worked
    stage.leaves_out = 0.6  # between the limits: it stays what it was
    assert stream.run(20) == why
    assert stage.worked > worked and stage.rests == 0
    stage.leaves_out = 0.0
    assert stream.run(6) == {}
    stage.leaves_out = 0.6
    assert stream.run(20) == {}


def test_a_stage_at_rest_is_not_run_beside_another_either(streams):
    stages = Simulated("registration", 1.0, ["status"]), Optional("detection", 1.0, ["look"])
    stream = streams(*stages)
    stream.chain.let_rest(frozenset({"detection"}))
    stream.run(0.1)
    assert (stages[1].worked, stages[1].rests) == (0, 3)


def test_the_stages_that_may_rest_are_those_that_guidance_can_do_without():
    from fluoronav.stream.pipeline.stages import STAGES, make_stages

    stages = make_stages(tuple(STAGES))
    assert [s.name for s in stages if isinstance(s, MayRest)] == ["detection", "view"]
    for stage in stages:
        stage.close()
