"""What the stages declare is what they touch."""

import threading

import numpy as np
import pytest

from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.pipeline.stages import STAGES, make_stages

AT_WORK = threading.local()


class Watched(FrameRecord):
    """A frame record that notes which fields are read and written while a stage is at work."""

    def __getattribute__(self, name):
        note(name, "read")
        return super().__getattribute__(name)

    def __setattr__(self, name, value):
        note(name, "written")
        super().__setattr__(name, value)


def note(name, how):
    touched = getattr(AT_WORK, "touched", None)
    if touched is not None and name in FrameRecord.__dataclass_fields__:
        touched[how].add(name)


@pytest.fixture(scope="module")
def touched(case, camera):
    """By stage: what it has read and written in some frames, with a pose and without."""
    stages = make_stages(tuple(STAGES))
    for stage in stages:
        stage.prepare(case, camera, lambda text: None)
    registration = next(s for s in stages if s.name == "registration")
    T = Scenario().poses(case)[30]
    anatomy = Anatomy(case, camera.scaled(0.5))
    beam = np.kron(anatomy.transmission(*anatomy.paths(T)), np.ones((2, 2), np.float32))
    counts = ImageChain(FlatPanel(), camera.rows, camera.cols, 3).counts(beam, 1)
    all_touched = {stage.name: {"read": set(), "written": set()} for stage in stages}
    for k in range(4):
        frame = Watched.of_counts(counts, seq=k, t_acq=k * 33_000_000)
        frame.last_status = "tracking"
        for stage in stages:
            if stage.name == "registration" and k == 1:
                registration.adopt(T, frame)
            AT_WORK.touched = all_touched[stage.name]
            stage.process(frame, Budget(1e6))
            AT_WORK.touched = None
        for stage in stages:
            stage.idle(frame, Budget(1e6))
    assert frame.registration is not None
    for stage in stages:
        stage.close()
    return stages, all_touched


def test_every_stage_declares_the_fields_that_it_writes(touched):
    stages, all_touched = touched
    for stage in stages:
        assert all_touched[stage.name]["written"] <= stage.writes, stage.name


def test_every_stage_declares_the_fields_that_it_reads_of_others(touched):
    stages, all_touched = touched
    written_by_any = frozenset().union(*(s.writes for s in stages))
    for stage in stages:
        foreign = (all_touched[stage.name]["read"] & written_by_any) - stage.writes
        assert foreign <= stage.reads, stage.name


def test_no_stage_declares_a_field_that_the_record_does_not_have(touched):
    for stage in touched[0]:
        assert stage.reads | stage.writes <= set(FrameRecord.__dataclass_fields__), stage.name
