"""A stage that the computer leaves no time rests, says why, and works again; one whose engine is missing says so."""

import sys

import numpy as np
import pytest

from fluoronav.imaging.inference import InferenceSettings, MissingError
from fluoronav.paths import shipped
from fluoronav.site.launch import LaunchFile, load_launch
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.pipeline.stages import STAGES
from fluoronav.stream.resting import LIMITS, Rest
from fluoronav.stream.stage import MayRest
from fluoronav.stream.view.stage import ViewStage


def test_a_rest_is_of_seconds_and_has_hysteresis():
    rest = Rest()
    for _ in range(60):
        rest.count(True)
    assert not rest.rests, "two slow seconds are not said"
    for _ in range(300):
        rest.count(True)
    assert rest.rests
    changes = []
    for k in range(2000):  # half of the frames: between the limits, so that it stays what it was
        rest.count(k % 5 < 3)
        changes.append(rest.rests)
    assert all(changes)
    for _ in range(int(2 * LIMITS.remembered_frames)):
        rest.count(False)
    assert not rest.rests


def test_the_demo_runs_every_stage():
    assert set(load_launch(shipped("launch/demo.yaml")).stages) == set(STAGES)


def test_so_does_a_launch_file_that_names_none():
    assert set(LaunchFile(case="embedded", camera="c.yaml").stages) == set(STAGES)


def seen(seq):
    frame = FrameRecord.of_counts(np.zeros((8, 8), np.uint16), seq=seq)
    frame.full_field_mask, frame.status = np.ones((8, 8), bool), "tracking"
    return frame


def test_a_detection_without_time_rests_says_how_long_it_takes_and_comes_back(camera, monkeypatch):
    stage = DetectionStage(looks="whole")
    stage.prepare(None, camera)
    assert isinstance(stage, MayRest) and stage.resting == ""
    monkeypatch.setattr(stage, "look", lambda *_: ())
    for seq in range(400):
        stage.process(seen(seq), Budget(0.5))
    assert stage.resting.startswith("most frames leave it too little time: a look takes ")
    for seq in range(400, 4000):
        stage.process(seen(seq), Budget(1e4))
    assert stage.resting == ""


def test_a_search_for_the_patient_is_no_rest(camera):
    stage = DetectionStage(looks="whole")
    stage.prepare(None, camera)
    for seq in range(400):
        frame = seen(seq)
        frame.last_status = "searching"
        stage.process(frame, Budget(1e4))
    assert stage.resting == ""


def test_without_onnx_runtime_the_detection_rests_and_the_frame_has_no_look(camera, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed
    stage = DetectionStage()
    stage.prepare(None, camera)
    frame = seen(0)
    stage.process(frame, Budget(1e4))
    assert frame.look is None and frame.detections == ()
    assert "pip install 'fluoronav[cpu]'" in stage.resting
    assert stage.models == {} and stage.fault == "" and stage.engine == "none"
    with pytest.raises(MissingError):
        DetectionStage(InferenceSettings(fallback="refuse")).prepare(None, camera)


def test_pictures_without_time_are_few_and_it_is_said(camera, rng):
    stage = ViewStage()
    stage.prepare(None, camera)
    counts = rng.integers(2000, 40000, (camera.rows, camera.cols)).astype(np.uint16)
    stage.idle(FrameRecord.of_counts(counts, seq=0), Budget(1e6))
    stage.wait()
    for seq in range(1, 400):
        stage.idle(FrameRecord.of_counts(counts, seq=seq), Budget(0.0))
    assert "time is left for one enhanced picture in " in stage.resting
    for seq in range(400, 480):
        stage.idle(FrameRecord.of_counts(counts, seq=seq), Budget(1e6))
        stage.wait()
    assert stage.resting == ""
    stage.close()


def test_without_onnx_runtime_pictures_are_enhanced_by_the_local_filter(camera, monkeypatch):
    """Regression: `make demo` without ONNX Runtime ended at its start, for a denoiser that runs on GPUs alone."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    stage = ViewStage(InferenceSettings(engine="auto"))
    stage.prepare(None, camera)
    assert stage.models == {} and stage.engine == "cpu"
    stage.close()
    asked = ViewStage(InferenceSettings(engine="auto", denoiser="network"))
    with pytest.raises(MissingError):
        asked.prepare(None, camera)
    asked.close()


def test_without_its_networks_file_the_detection_rests_and_says_which(camera, monkeypatch, tmp_path):
    monkeypatch.setattr("fluoronav.stream.detection.two_stage.engine", lambda name: tmp_path / "engines" / name)
    stage = DetectionStage()
    stage.prepare(None, camera)
    assert stage.resting == "instrument-strips.onnx: no such file in the folder engines: install fluoronav anew"


def test_a_detection_that_is_put_to_rest_carries_its_finds_on_and_says_so_in_the_look(camera):
    stage = DetectionStage(looks="whole")
    stage.prepare(None, camera)
    frame = seen(0)
    stage.rest(frame)
    assert (frame.look.kind, frame.look.reason) == ("none", "rest")
    stage._missing = "no engine"
    nothing = seen(1)
    stage.rest(nothing)
    assert nothing.look is None
