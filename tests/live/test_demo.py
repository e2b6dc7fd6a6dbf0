"""`fluoronav demo` and its rig with real processes: a run without any pose fails."""

import json
import threading
import time

import numpy as np
import psutil
import pytest
import yaml

from fluoronav.cli import main
from fluoronav.geometry import Camera
from fluoronav.lab import demo
from fluoronav.lab.latency_report import draw_histogram, report, table
from fluoronav.lab.simulation import rig
from fluoronav.lab.simulation.rig import CapturedRun, why_without_a_pose
from fluoronav.paths import shipped

SIZE = 256


@pytest.fixture
def launch(tmp_path):
    """Writes the demo's launch file for a small camera, with changes."""
    small = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(SIZE / 1024)
    (tmp_path / "camera.yaml").write_text(yaml.safe_dump({"rows": SIZE, "cols": SIZE, "K": small.K.tolist()}))

    def write(**change):
        path = tmp_path / "launch.yaml"
        content = {"case": "embedded", "camera": "camera.yaml", "audit": "audit"} | change
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def overlay(seq, **change):
    return {"seq": seq, "t_acq": 0, "t_sent": 1, "status": "searching", "registration": None, "stages": {},
            "dropped": {"network": 0, "overload": 0, "invalid": 0}} | change  # fmt: skip


def recorded(overlays=(), sent=10, **of_health):
    health = {"state": "running", "frames": {"received": len(overlays)}} | of_health
    return CapturedRun([(10_000_000, o) for o in overlays], [], [(0, health)], {}, sent)


def test_a_demo_in_which_no_frame_got_a_pose_fails_with_the_reason_and_leaves_its_records(launch, tmp_path, capsys):
    out = tmp_path / "out"
    failed = demo.run_demo(launch(stages=["attenuation"]), 0.7, out)
    assert failed.startswith("no frame of 21 got a pose: of ") and "overlays" in failed
    assert f"FAILED: {failed}" in capsys.readouterr().out
    assert json.loads((out / "latency.json").read_text())["failed"] == failed
    assert {p.name for p in out.iterdir()} == {
        "demo.png", "latency.png", "latency.txt", "latency.json", "overlays.jsonl", "alerts.jsonl",
    }  # fmt: skip
    said = [json.loads(line) for line in (out / "overlays.jsonl").read_text().splitlines()]
    assert said and not any(o["registration"] for o in said)


def test_a_demo_whose_pipeline_dies_fails_with_the_reason_and_leaves_what_it_recorded(launch, tmp_path, monkeypatch):
    class Listening(rig.Subscriber):
        """Kills the pipeline after its first overlay."""

        def __init__(self, endpoint):
            super().__init__(endpoint)
            threading.Thread(target=self._kill, daemon=True).start()

        def _kill(self):
            while not any(parts[0].startswith(b"overlay/") for _, parts in list(self.raw)):
                time.sleep(0.05)
            (pipeline,) = (p for p in psutil.Process().children() if "run" in p.cmdline())
            pipeline.kill()

    monkeypatch.setattr(rig, "Subscriber", Listening)
    out = tmp_path / "out"
    failed = demo.run_demo(launch(stages=["attenuation"]), 60, out)
    assert failed.startswith("the pipeline was ended by signal 9; it said last: ") and "overlays had come" in failed
    said = (out / "overlays.jsonl").read_text().splitlines()
    assert said and f"({len(said)} overlays had come)" in failed
    assert (out / "demo.png").exists(), "the grabber's truth is kept, too"


@pytest.mark.parametrize("failed", ["", "no frame of 21 got a pose"])
def test_the_verb_ends_with_1_when_the_demo_failed_and_says_why(monkeypatch, capsys, failed):
    monkeypatch.setattr(demo, "run_demo", lambda *_: failed)
    assert main(["demo", "--no-display"]) == bool(failed)
    assert (f"fluoronav demo: {failed}" in capsys.readouterr().err) == bool(failed)


def test_the_latency_bench_ends_with_1_when_no_frame_got_a_pose_and_its_report_says_so(launch, tmp_path, capsys):
    path = tmp_path / "latency.json"
    arguments = ["--frames", "20", "--size", str(SIZE), "--stages", "attenuation", "--json", str(path)]
    assert main(["bench", "latency", "--launch", str(launch()), *arguments]) == 1
    assert json.loads(path.read_text())["failed"].startswith("no frame of 20 got a pose")
    assert "FAILED: no frame of 20 got a pose" in capsys.readouterr().out


def test_a_run_with_one_pose_has_not_failed():
    assert why_without_a_pose(recorded([overlay(0), overlay(1, status="tracking", registration={"tre_mm": 1.0})])) == ""


@pytest.mark.parametrize(
    ("recording", "said"),
    [
        (recorded([], sent=0), "no frame was sent: nobody subscribed"),
        (recorded([], frames={"received": 0}), "no overlay came for 10 frames, of which the pipeline received 0"),
        (CapturedRun(sent=10), "it sent no health message"),
        (recorded([overlay(0), overlay(1, status="lost")]), "of 2 overlays lost 1, searching 1"),
        (recorded([], invalid_by_field={"rows": 10, "seq": 0}), "invalid rows 10"),
        (recorded([overlay(0)], state="degraded", reason="no tracker"), "health says degraded: no tracker"),
        (recorded([overlay(0)], state="failed", error="guidance: broke"), "health says failed: guidance: broke"),
    ],
)  # fmt: skip
def test_the_reason_is_in_words(recording, said):
    assert said in why_without_a_pose(recording)


def test_poses_none_of_which_was_tracked_are_no_result():
    pose = {"tre_mm": 1.0}
    said = why_without_a_pose(recorded([overlay(0), overlay(1, status="degraded", registration=pose)]))
    assert said.startswith("no pose was ever tracked: of 2 overlays degraded 1, searching 1")


def test_a_computer_that_is_too_slow_for_a_pose_is_named_with_its_late_and_skipped_frames():
    skipped = {"network": 0, "overload": 3, "invalid": 0}
    said = why_without_a_pose(recorded([overlay(0, missed=True), overlay(1, missed=False, dropped=skipped)]))
    assert "50 % of the overlays were late and 3 frames of 10 were skipped: this computer is too slow" in said
    assert "too slow" not in why_without_a_pose(recorded([overlay(0), overlay(1)]))


def test_the_texts_of_alerts_are_in_the_reason_once():
    recording = recorded([overlay(0)])
    recording.alerts = [(0, {"state": "raised", "text": "the patient is not found"})] * 3
    assert why_without_a_pose(recording).count("alert: the patient is not found") == 1


def test_a_report_without_any_overlay_is_written_and_states_it(tmp_path):
    result = report(recorded([]), np.zeros(3), 33.3)
    assert "no overlay came" in table(result) and "FAILED" in table(result)
    draw_histogram(recorded([]), 33.3, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").stat().st_size > 1000


def test_a_run_with_mostly_late_frames_states_it():
    pose = {"T_camera_ct": np.eye(4).ravel().tolist(), "tre_mm": 1.0, "tre_image_mm": 1.0}
    late = [overlay(k, registration=pose, t_acq=-90_000_000 * (k > 2)) for k in range(10)]
    result = report(recorded(late), np.zeros(3), 33.3)
    assert result["frames"]["missed"] == 7
    assert "MOST FRAMES WERE LATE: 7 of 10" in table(result)
    assert "MOST" not in table(report(recorded(late[:5]), np.zeros(3), 33.3))


def test_an_exported_plan_guides_a_tip_along_its_screw_with_distances_and_alerts(launch, tmp_path):
    """The planned case names no instruments; the demo adds the simulation's, 4 degrees off the screw.

    Whether a search ends in time on a busy computer is not asked here: the tracker places the tip without it.
    """
    pytest.importorskip("skimage")
    from fluoronav.planning.export.stream_case import write_stream_case
    from fluoronav.planning.plan.planned import read_planned
    from tests.planning.planned_case import LEFT, planned_case

    planned = planned_case(tmp_path / "planned", LEFT)
    content = yaml.safe_load((planned / "case.yaml").read_text())
    del content["tools"], content["tracker"]
    (planned / "case.yaml").write_text(yaml.safe_dump(content))
    write_stream_case(read_planned(planned), tmp_path / "or", lambda _: None)
    demo.run_demo(launch(), 10.0, tmp_path / "out", case_path=tmp_path / "or")
    said = [json.loads(line) for line in (tmp_path / "out" / "overlays.jsonl").read_text().splitlines()]
    guided = [o for o in said if o["instruments"] and o["plan"] and o["distances"]]
    assert len(guided) > 20
    along = [o["plan"][0] for o in guided if o["plan"][0]["depth_left_mm"] is not None]
    assert {p["trajectory"] for p in along} == {"T8_left"}
    assert np.median([p["angle_deg"] for p in along]) == pytest.approx(4, abs=0.5)
    assert min(p["depth_left_mm"] for p in along) < 5 < 30 < max(p["depth_left_mm"] for p in along)
    # What the detection alone sees has no place in the patient, and is not guided.
    assert {i["id"] for o in guided for i in o["instruments"] if i["tip_ct"] is not None} == {"kwire"}
    assert {d["structure"] for o in guided for d in o["distances"]} >= {"spinal_cord"}
    alerts = [json.loads(line) for line in (tmp_path / "out" / "alerts.jsonl").read_text().splitlines()]
    assert any(a["structure"] == "spinal_cord" and a["state"] == "raised" for a in alerts)
