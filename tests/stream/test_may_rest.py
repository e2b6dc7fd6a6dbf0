"""Stages that guidance can do without: they count the frames that leave them no time, and say what is missing."""

import sys

import numpy as np
import pytest

from fluoronav.imaging.inference import InferenceSettings, MissingError
from fluoronav.paths import shipped
from fluoronav.site.launch import LaunchFile, load_launch
from fluoronav.stream.detection.stage import DetectionStage
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.pipeline.stages import STAGES
from fluoronav.stream.stage import MayRest
from fluoronav.stream.view.stage import ViewStage


def test_the_demo_runs_every_stage():
    assert set(load_launch(shipped("launch/demo.yaml")).stages) == set(STAGES)


def test_so_does_a_launch_file_that_names_none():
    assert set(LaunchFile(case="embedded", camera="c.yaml").stages) == set(STAGES)


def seen(seq):
    frame = FrameRecord.of_counts(np.zeros((8, 8), np.uint16), seq=seq)
    frame.full_field_mask, frame.status = np.ones((8, 8), bool), "tracking"
    return frame


def test_a_detection_counts_the_frames_that_leave_it_no_time(camera, monkeypatch):
    stage = DetectionStage(looks="whole")
    stage.prepare(None, camera)
    assert isinstance(stage, MayRest) and stage.missing == "" and stage.takes_ms > 0
    monkeypatch.setattr(stage, "look", lambda *_: ())
    for seq in range(40):
        stage.process(seen(seq), Budget(0.5))
    assert (stage.worked, stage.left_out) == (0, 40)
    for seq in range(40, 90):
        stage.process(seen(seq), Budget(1e4))
    assert (stage.worked, stage.left_out) == (50, 40)


def test_a_search_for_the_patient_is_no_lack_of_time(camera):
    stage = DetectionStage(looks="whole")
    stage.prepare(None, camera)
    for seq in range(40):
        frame = seen(seq)
        frame.last_status = "searching"
        stage.process(frame, Budget(1e4))
    assert (stage.worked, stage.left_out) == (0, 0)


def test_without_onnx_runtime_the_detection_rests_and_the_frame_has_no_look(camera, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed
    stage = DetectionStage()
    stage.prepare(None, camera)
    frame = seen(0)
    stage.process(frame, Budget(1e4))
    assert frame.look is None and frame.detections == ()
    assert "pip install 'fluoronav[cpu]'" in stage.missing
    assert stage.models == {} and stage.fault == "" and stage.engine == "none"
    with pytest.raises(MissingError):
        DetectionStage(InferenceSettings(fallback="refuse")).prepare(None, camera)


def test_pictures_without_time_are_few_and_counted(camera, rng):
    stage = ViewStage()
    stage.prepare(None, camera)
    assert isinstance(stage, MayRest) and stage.missing == ""
    counts = rng.integers(2000, 40000, (camera.rows, camera.cols)).astype(np.uint16)
    stage.idle(FrameRecord.of_counts(counts, seq=0), Budget(1e6))
    stage.wait()
    for seq in range(1, 40):
        stage.idle(FrameRecord.of_counts(counts, seq=seq), Budget(0.0))
    assert stage.takes_ms > 0 and stage.worked + stage.left_out == 40 and stage.left_out > 30
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
    assert stage.missing == "instrument-strips.onnx: no such file in the folder engines: install fluoronav anew"


def test_a_detection_that_is_put_to_rest_carries_its_finds_on_and_says_so_in_the_look(camera):
    stage = DetectionStage(looks="whole")
    stage.prepare(None, camera)
    frame = seen(0)
    stage.rest(frame)
    assert (frame.look.kind, frame.look.reason) == ("none", "rest")
    stage.missing = "no engine"
    nothing = seen(1)
    stage.rest(nothing)
    assert nothing.look is None
