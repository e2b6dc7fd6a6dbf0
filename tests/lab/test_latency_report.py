"""What the report of `bench latency` says beyond quantiles: the first pose, the rate, keyframes."""

from fluoronav.lab.latency_report import report, table
from fluoronav.lab.simulation.rig import CapturedRun

TARGET = (0.0, 0.0, 0.0)
T0 = 1_700_000_000_000_000_000
POSE = {
    "T_camera_ct": [1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 600, 0, 0, 0, 1], "tre_mm": 1.0, "tre_image_mm": 0.2,
}  # fmt: skip


def captured(posed_from, frames=31, fps=60.0, **of_health):
    """Overlays 10 ms after their exposures; those from `posed_from` on have a pose."""
    times = [T0 + round(k * 1e9 / fps) for k in range(frames)]
    overlays = [
        (t + 10_000_000, {
            "seq": k, "t_acq": t, "t_sent": t + 9_000_000, "missed": False, "stages": {"registration": 3.0},
            "status": "tracking" if k >= posed_from else "searching",
            "registration": POSE if k >= posed_from else None, "dropped": {"network": 0, "overload": 0, "invalid": 0},
        })
        for k, t in enumerate(times)
    ]  # fmt: skip
    pose = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 600], [0, 0, 0, 1]]
    truth = {k: {"t_acq": t, "T_camera_ct": pose} for k, t in enumerate(times)}
    health = {"state": "running", "frames": {"received": frames}} | of_health
    return CapturedRun(overlays, [], [(T0, health)], truth, frames)


def test_the_first_pose_is_timed_from_the_first_frame_that_was_sent():
    result = report(captured(posed_from=6), TARGET, 33.3)
    assert round(result["start_s"]["first_pose"], 3) == 0.110
    assert "first pose 0.11 s after the first frame" in table(result)


def test_a_run_without_a_pose_has_no_first_one():
    result = report(captured(posed_from=99), TARGET, 33.3)
    assert result["start_s"]["first_pose"] is None
    assert "first pose" not in table(result)


def test_the_rate_is_the_one_at_which_frames_were_sent():
    assert "31 sent at 60.0 a second = 31 overlays + 0 dropped" in table(report(captured(0), TARGET, 33.3))


def test_keyframes_are_counted_where_health_says_them_and_not_mentioned_where_it_does_not():
    said = report(captured(0, keyframes={"beside": 12, "in_frames": 3}), TARGET, 33.3)
    assert said["keyframes"] == {"beside": 12, "in_frames": 3}
    assert "keyframes rendered: beside 12, in frames 3" in table(said)
    silent = report(captured(0), TARGET, 33.3)
    assert silent["keyframes"] is None
    assert "keyframes" not in table(silent)


def test_what_rested_and_why_is_in_the_report():
    assert "\nno stage rested" in table(report(captured(0), TARGET, 33.3))
    run = captured(0, resting={"detection": "no engine", "view": "the chain needs 36 ms"})
    later = run.health[0][1] | {"resting": {"detection": "no engine"}}
    run.health.append((T0, later))
    text = table(report(run, TARGET, 33.3))
    assert "\ndetection rests: no engine" in text and "no stage rested" not in text
    assert "\nview rested for 1 of 2 s, and works again: the chain needs 36 ms" in text


def test_the_report_says_processor_kernels_and_networks():
    text = table(report(captured(0), TARGET, 33.3))
    assert text.startswith("processor: ")
    assert "\nkernels: compiled for " in text
    assert "ONNX Runtime uses what the processor has" in text


def test_an_error_that_health_says_is_in_the_report():
    said = report(captured(0, error="guidance: ValueError: no silhouette"), TARGET, 33.3)
    assert "THE PIPELINE SAID AN ERROR: guidance: ValueError: no silhouette" in table(said)
    assert "ERROR" not in table(report(captured(0, error=""), TARGET, 33.3))
