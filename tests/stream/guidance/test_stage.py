"""Guidance on the embedded case: distances against the truth, alerts in the very frame, outlines on the bone."""

import dataclasses

import numpy as np
import pytest

from fluoronav.case import NoGo
from fluoronav.geometry import transform_points
from fluoronav.stream.frame import Budget, FrameRecord, Instrument, RegistrationResult
from fluoronav.stream.guidance import GuidanceStage
from fluoronav.stream.guidance.progress import lateral_axes
from fluoronav.stream.reasons import MIRRORED, NOTHING_FITS, UNSURE


@pytest.fixture
def stage(case, camera):
    stage = GuidanceStage()
    stage.prepare(case, camera)
    yield stage
    stage.close()


def middle_of(structure):
    """A point well inside of a structure, half-way up, LPS mm."""
    field = structure.field
    inside = np.argwhere(field.hundredths < -300)
    index = inside[np.abs(inside[:, 0] - len(field.hundredths) // 2).argmin()]
    return field.origin_ct + index[::-1] * field.spacing_mm


def record(case, tip_ct=None, axis_ct=(0.0, -1.0, 0.0), T=None, seq=1, status="tracking"):
    frame = FrameRecord.of_counts(np.zeros((4, 4), np.uint16), seq=seq)
    if T is not None:
        frame.registration = RegistrationResult(T, 0.9, np.ones(6), 1.0, 0.3, 0)
    frame.status = status
    if tip_ct is not None:
        tool = Instrument("kwire", "k-wire", None, None, np.array(tip_ct), np.array(axis_ct), 0.3, "tracker", 0)
        frame.instruments = (tool,)
    return frame


def test_an_alert_leaves_with_the_frame_in_which_the_threshold_is_passed(stage, case):
    cord = next(s for s in case.structures if s.name == "spinal_cord")
    aim = np.array(case.plan[0].entry_ct)
    centre = middle_of(cord)
    levels, alerts = [], []
    for n, share in enumerate(np.linspace(0, 1, 60)):
        frame = record(case, aim + share * (centre - aim), seq=n)
        stage.process(frame, Budget(30))
        d = next(d for d in frame.distances if d.structure == "spinal_cord")
        assert d.lower_mm < d.distance_mm
        # Tip or shaft, whichever is nearer: never farther than the tip.
        assert d.distance_mm <= np.linalg.norm(d.nearest_ct - frame.instruments[0].tip_ct) + 1e-6
        levels.append(d.level)
        assert (d.lower_mm <= cord.caution_mm) == (d.level != "clear")
        assert (d.lower_mm <= cord.danger_mm) == (d.level == "danger")
        alerts += [(n, a.state, a.priority) for a in frame.alerts if a.structure == "spinal_cord"]
    assert levels[0] == "clear" and levels[-1] == "danger"
    assert alerts == [(levels.index("caution"), "raised", "medium"), (levels.index("danger"), "changed", "high")]


def test_a_shaft_that_comes_close_is_told_although_the_tip_is_far_away(stage, case):
    cord = next(s for s in case.structures if s.name == "spinal_cord")
    centre = middle_of(cord)
    axis = np.array([1.0, 0, 0])
    frame = record(case, centre + 45 * axis, axis)  # through the canal and out on the other side
    stage.process(frame, Budget(30))
    d = next(d for d in frame.distances if d.structure == "spinal_cord")
    assert d.level == "danger" and d.distance_mm < 0
    assert np.linalg.norm(d.nearest_ct - frame.instruments[0].tip_ct) > 30
    # The bound widens with the distance from the tip: the axis is not known exactly.
    near = record(case, centre, axis)
    stage.process(near, Budget(30))
    e = next(d for d in near.distances if d.structure == "spinal_cord")
    assert d.distance_mm - d.lower_mm > e.distance_mm - e.lower_mm


def test_the_plan_says_how_far_aside_how_steep_and_how_deep(stage, case):
    plan = case.plan[0]
    entry, target = np.array(plan.entry_ct), np.array(plan.target_ct)
    axis = (target - entry) / np.linalg.norm(target - entry)
    side = np.cross(axis, [0, 0, 1.0])
    side /= np.linalg.norm(side)
    frame = record(case, target - 7 * axis + 2 * side, axis, case.prior.T_camera_ct())
    stage.process(frame, Budget(30))
    p = frame.plan[0]
    assert (p.depth_left_mm, p.lateral_mm, p.angle_deg) == pytest.approx((7, 2, 0), abs=1e-4)
    assert p.entry_px is not None and p.target_px is not None


def test_outlines_enclose_the_projected_bone(stage, case, camera):
    T = case.prior.T_camera_ct()
    for _ in range(2):
        frame = record(case, T=T)
        stage.process(frame, Budget(30))
        stage.idle(frame, Budget(1e6))
        if stage._search:
            stage._search.result()
    import cv2

    names = {o.structure for o in frame.outlines}
    assert {"vertebrae_T8", "aorta", "spinal_cord"} <= names
    outline = next(o for o in frame.outlines if o.structure == "vertebrae_T8")
    drawn = np.zeros((camera.rows, camera.cols), np.uint8)
    cv2.fillPoly(drawn, [np.rint(p).astype(np.int32) for p in outline.paths], 1)
    field = next(s for s in case.structures if s.name == "vertebrae_T8").field
    index = np.argwhere(field.hundredths < 0)
    uv = camera.project(transform_points(T, field.origin_ct + index[:, ::-1] * field.spacing_mm))
    mask = np.zeros_like(drawn)
    u, v = np.rint(uv).astype(int).T
    mask[v, u] = 1
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((19, 19), np.uint8))
    overlap = 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum())
    assert overlap > 0.93


def test_silhouettes_that_fail_cost_no_distance_and_are_searched_anew(stage, case, monkeypatch):
    def fail(T_camera_ct):
        raise ValueError("no silhouette")

    T = case.prior.T_camera_ct()
    stage.process(record(case, T=T), Budget(30))
    with monkeypatch.context() as patch:
        patch.setattr(stage._outlines, "silhouettes", fail)
        stage.idle(record(case, T=T), Budget(1e6))
        stage._search.exception()
    frame = record(case, case.plan[0].entry_ct, T=T)
    with pytest.raises(ValueError, match="no silhouette"):  # the chain says it
        stage.process(frame, Budget(30))
    assert frame.distances and frame.plan
    stage.process(frame, Budget(30))
    stage._silhouettes_of = None
    stage.idle(frame, Budget(1e6))
    stage._search.result()
    stage.process(frame, Budget(30))
    assert frame.outlines


def test_a_lost_registration_is_an_alert_within_two_frames_and_cleared_when_found(stage, case):
    T = case.prior.T_camera_ct()
    states = []
    for n, status in enumerate(["tracking", "tracking", "lost", "lost", "searching", "tracking"]):
        frame = record(case, T=T if status == "tracking" else None, status=status, seq=n)
        stage.process(frame, Budget(30))
        states += [(n, a.state) for a in frame.alerts if a.kind == "registration_lost"]
    assert states == [(2, "raised"), (5, "cleared")]


def test_an_instrument_that_disappears_is_missed(stage, case):
    kinds = []
    for n in range(40):
        frame = record(case, (14.0, 140.0, -158.0) if n < 5 or n > 35 else None, seq=n)
        stage.process(frame, Budget(30))
        kinds += [a.state for a in frame.alerts if a.kind == "instrument_lost"]
    assert kinds == ["raised", "cleared"]


def test_a_trembling_tip_at_a_threshold_raises_one_alert(stage, case, rng):
    aorta = next(s for s in case.structures if s.name == "aorta")
    at = np.argwhere(np.abs(aorta.field.hundredths - 650) < 20)[0]  # 6.5 mm off; caution from 6 mm on
    tip = aorta.field.origin_ct + at[::-1] * aorta.field.spacing_mm
    raised = []
    for n in range(200):
        frame = record(case, tip + rng.normal(0, 0.5, 3), axis_ct=(0.0, 0.0, 1.0), seq=n)
        stage.process(frame, Budget(30))
        raised += [a for a in frame.alerts if a.structure == "aorta" and a.state == "raised"]
    assert len(raised) <= 1


def moving(stage, case, tips, axis, t0=0, kind="tracker", fps=30):
    """Frames in which the tip is at one place after another."""
    frames = []
    for n, tip in enumerate(tips):
        frame = record(case, tip, axis, seq=n)
        frame.t_acq = t0 + int(n * 1e9 / fps)
        frame.instruments = tuple(dataclasses.replace(i, origin=kind) for i in frame.instruments)
        stage.process(frame, Budget(30))
        frames.append(frame)
    return frames


def test_the_way_ahead_and_the_time_to_contact_are_those_of_a_straight_approach(stage, case, rng):
    """At 20 mm/s straight at the cord: what is left shrinks by as much, and the alert says when it comes."""
    cord = next(s for s in case.structures if s.name == "spinal_cord")
    centre = middle_of(cord)
    axis = np.array([0.0, -1.0, 0.0])
    tips = [centre - (30 - 20 / 30 * n) * axis + rng.normal(0, 0.05, 3) for n in range(30)]
    frames = moving(stage, case, tips, axis)
    ways = [next(d for d in f.distances if d.structure == "spinal_cord") for f in frames]
    # Straight ahead: the way is the distance less the error of the place that is reached.
    for d in ways[:20]:
        assert d.ahead_mm is not None and d.ahead_mm < d.distance_mm + 2
    fell = ways[5].ahead_mm - ways[20].ahead_mm
    assert fell == pytest.approx(10.0, abs=0.7)
    assert ways[20].contact_s == pytest.approx(ways[20].distance_mm / 20, rel=0.15)
    assert ways[2].contact_s is None  # too few frames to say
    texts = [a.text for f in frames for a in f.alerts if a.structure == "spinal_cord"]
    assert texts and all("s at this speed" in t for t in texts)


def test_nothing_is_ahead_of_an_instrument_that_points_away_or_stands_still(stage, case):
    cord = next(s for s in case.structures if s.name == "spinal_cord")
    centre = middle_of(cord)
    away = np.array([0.0, 1.0, 0.0])
    frames = moving(stage, case, [centre + 30 * away] * 15, away)
    d = next(d for d in frames[-1].distances if d.structure == "spinal_cord")
    assert d.ahead_mm is None and d.contact_s is None


def test_a_region_that_was_drawn_is_watched_and_outlined_like_a_structure(case, camera):
    target = np.array(case.target_ct)
    region = NoGo(name="keep out", caution_mm=6, danger_mm=2, sphere={"centre_ct": target.tolist(), "radius_mm": 8.0})
    mine = dataclasses.replace(case, file=case.file.model_copy(update={"no_go": (region,)}))
    stage = GuidanceStage()
    stage.prepare(mine, camera)
    side = np.array([1.0, 0, 0])
    alerts = []
    for off in (30.0, 13.0, 9.0, 2.0):
        frame = record(mine, target + off * side, -side, T=case.prior.T_camera_ct())
        stage.process(frame, Budget(30))
        alerts += [(off, a.priority) for a in frame.alerts if a.structure == "keep out"]
    assert alerts == [(13.0, "medium"), (9.0, "high")]
    d = next(d for d in frame.distances if d.structure == "keep out")
    assert d.distance_mm < 0
    stage.idle(frame, Budget(1e6))
    stage._search.result()
    frame = record(mine, T=case.prior.T_camera_ct())
    stage.process(frame, Budget(30))
    outline = next(o for o in frame.outlines if o.structure == "keep out")
    centre = camera.project(transform_points(case.prior.T_camera_ct(), target))
    depth = transform_points(case.prior.T_camera_ct(), target)[2]
    radii = np.linalg.norm(np.concatenate(outline.paths) - centre, axis=1)
    assert np.median(radii) == pytest.approx(8 * camera.focal_px / depth, rel=0.05)
    stage.close()


@pytest.mark.parametrize("origin", ["image", "tracker"])
def test_an_alarm_of_an_instrument_that_is_gone_stays_and_says_that_it_is_not_measured(stage, case, origin):
    cord = next(s for s in case.structures if s.name == "spinal_cord")
    inside = np.argwhere(cord.field.hundredths < -300)
    centre = cord.field.origin_ct + inside[len(inside) // 2][::-1] * cord.field.spacing_mm
    (first,) = moving(stage, case, [centre], (0.0, -1.0, 0.0), kind=origin)
    assert any(a.kind == "proximity" and a.state == "raised" for a in first.alerts)
    said = []
    for n in range(40):
        frame = record(case, seq=n)
        stage.process(frame, Budget(30))
        said += [(n, a) for a in frame.alerts if a.structure == "spinal_cord" or a.kind == "instrument_lost"]
    assert [(n, a.kind, a.state, a.priority) for n, a in said] == [
        (14, "instrument_lost", "raised", "medium"), (14, "proximity", "changed", "high")
    ]  # fmt: skip
    alarm = said[1][1]
    assert "no longer measured" in alarm.text and alarm.distance_mm is None and alarm.lower_mm is None


def near_the_cord(stage, case, **change):
    """A frame with the tip in the middle of the cord, or with an instrument that was altered."""
    cord = next(s for s in case.structures if s.name == "spinal_cord")
    frame = record(case, middle_of(cord))
    frame.instruments = tuple(dataclasses.replace(i, **change) for i in frame.instruments)
    stage.process(frame, Budget(30))
    return frame


@pytest.mark.parametrize(
    "glitch",
    [
        {"tip_ct": np.array([1e5, 0.0, 0.0])},
        {"tip_ct": np.array([1e200, 0.0, 0.0])},
        {"tip_ct": np.array([np.nan, 0.0, 0.0])},
        {"tip_ct": np.array([3000.0, 0.0, 0.0])},
        {"sigma_mm": 50.0},
        {"sigma_mm": np.inf},
        {"tip_ct": None, "axis_ct": None},
    ],
    ids=["100 m", "1e200", "nan", "3 m", "error 50 mm", "error infinite", "no place"],
)
def test_what_cannot_be_believed_of_an_instrument_never_lowers_its_alarm(stage, case, glitch):
    """Regression: 100 m, or an error of 50 mm, was said to be clear of the spinal cord again."""
    alarms = [a for a in near_the_cord(stage, case).alerts if a.structure == "spinal_cord"]
    assert [(a.state, a.priority) for a in alarms] == [("raised", "high")]
    said = []
    for _ in range(60):
        frame = near_the_cord(stage, case, **glitch)
        assert all(d.structure != "spinal_cord" for d in frame.distances)
        said += [a for a in frame.alerts if a.structure == "spinal_cord" or a.kind == "instrument_lost"]
    assert sorted((a.kind, a.state) for a in said) == [("instrument_lost", "raised"), ("proximity", "changed")]
    assert any(a.kind == "proximity" and a.priority == "high" for a in stage.alerts.open())


def test_an_alarm_that_is_measured_again_says_so_and_is_cleared_by_a_distance_alone(stage, case):
    near_the_cord(stage, case)
    for _ in range(20):
        stage.process(record(case), Budget(30))
    again = [a for a in near_the_cord(stage, case).alerts if a.structure == "spinal_cord"]
    assert [a.state for a in again] == ["changed"] and again[0].distance_mm is not None
    away = np.array(case.target_ct) + [0.0, 150.0, 0.0]
    states = []
    for _ in range(20):
        frame = record(case, away)
        stage.process(frame, Budget(30))
        states += [a.state for a in frame.alerts if a.structure == "spinal_cord"]
    assert states == ["cleared"]


def test_where_frames_come_slowly_an_instrument_is_missed_after_half_a_second(stage, case):
    near_the_cord(stage, case)
    kinds = []
    for n in range(4):
        frame = record(case)
        frame.t_acq = n * 333_000_000
        stage.process(frame, Budget(30))
        kinds += [(n, a.kind) for a in frame.alerts if a.kind == "instrument_lost"]
    assert kinds == [(2, "instrument_lost")]


def test_alarms_from_before_a_restart_are_held_until_they_are_measured(stage, case, camera):
    near_the_cord(stage, case)
    (before,) = [a for a in stage.alerts.open() if a.structure == "spinal_cord"]
    anew = GuidanceStage()
    anew.prepare(case, camera)
    near_the_cord(anew, case)
    (measured,) = [a for a in anew.alerts.open() if a.structure == "spinal_cord"]
    anew.restore([before])  # a frame was faster: its alarm goes on under its own id
    assert [a for a in anew.alerts.open() if a.structure == "spinal_cord"] == [measured]
    anew.close()
    anew = GuidanceStage()
    anew.prepare(case, camera)
    anew.restore([before])
    (held,) = anew.alerts.open()
    assert (held.priority, held.state, held.distance_mm) == ("high", "raised", None)
    assert held.id != before.id and "before the restart" in held.text
    for _ in range(40):
        anew.process(record(case), Budget(30))
    assert [a.priority for a in anew.alerts.open() if a.structure == "spinal_cord"] == ["high"]
    for _ in range(20):
        frame = record(case, np.array(case.target_ct) + [0.0, 150.0, 0.0])
        anew.process(frame, Budget(30))
    assert not any(a.structure == "spinal_cord" for a in anew.alerts.open())
    anew.close()


def test_an_acknowledged_alarm_of_a_find_that_only_pictures_showed_ends(stage, case):
    """Its name is never used again: nothing could ever measure it."""
    near_the_cord(stage, case, origin="image")
    for _ in range(20):
        stage.process(record(case), Budget(30))
    (alarm,) = [a for a in stage.alerts.open() if a.structure == "spinal_cord"]
    assert stage.acknowledge(alarm.id, "Dr Who").state == "cleared"
    near_the_cord(stage, case)  # a tracked tool
    for _ in range(20):
        stage.process(record(case), Budget(30))
    (alarm,) = [a for a in stage.alerts.open() if a.structure == "spinal_cord"]
    assert stage.acknowledge(alarm.id, "Dr Who").state == "acknowledged"
    assert [a.state for a in stage.alerts.open() if a.structure == "spinal_cord"] == ["acknowledged"]


def test_a_registration_that_stays_in_doubt_is_an_alert_with_the_reason(stage, case):
    """Regression: eight minutes of `degraded` without a word."""
    T = case.prior.T_camera_ct()
    said = []
    for n in range(100):
        frame = record(case, T=T, status="tracking" if n < 2 or n > 90 else "degraded", seq=n)
        frame.t_acq, frame.status_reason = n * 50_000_000, "the whole field does not agree with the CT"
        stage.process(frame, Budget(30))
        said += [(n, a.state, a.priority, a.text) for a in frame.alerts if a.kind == "registration_lost"]
    assert [s[:3] for s in said] == [(43, "raised", "medium"), (91, "cleared", "medium")]
    assert "does not agree" in said[0][3]


@pytest.mark.parametrize(("reason", "priority"), [(NOTHING_FITS, "low"), (MIRRORED, "medium"), ("", None)])
def test_a_patient_who_is_never_found_is_an_alert_with_the_reason(stage, case, reason, priority):
    said = []
    for n in range(20):
        frame = record(case, T=case.prior.T_camera_ct() if n == 19 else None, seq=n)
        frame.status, frame.status_reason = ("tracking", "") if n == 19 else ("searching", reason)
        stage.process(frame, Budget(30))
        said += [(n, a.state, a.priority, reason in a.text) for a in frame.alerts if a.kind == "registration_lost"]
    assert said == ([(0, "raised", priority, True), (19, "cleared", priority, False)] if priority else [])


def test_a_patient_who_is_found_at_last_and_stays_in_doubt_is_said_to_be_so(stage, case):
    """Regression: the alert that nothing had been found yet kept the one with the reason back."""
    T, said = case.prior.T_camera_ct(), []
    for n in range(60):
        frame = record(case, T=None if n < 5 else T, status="searching" if n < 5 else "degraded", seq=n)
        frame.t_acq, frame.status_reason = n * 50_000_000, NOTHING_FITS if n < 5 else UNSURE
        stage.process(frame, Budget(30))
        said += [(n, a.state, a.priority, a.text) for a in frame.alerts if a.kind == "registration_lost"]
    assert [s[:3] for s in said] == [(0, "raised", "low"), (46, "changed", "medium")]
    assert UNSURE in said[1][3]


def test_an_instrument_that_is_roughly_placed_has_no_distances(stage, case):
    frame = record(case, case.target_ct)
    frame.instruments = tuple(dataclasses.replace(i, sigma_mm=40.0) for i in frame.instruments)
    stage.process(frame, Budget(30))
    assert frame.distances == () and frame.alerts == []


def test_why_a_tool_is_not_believed_is_in_the_alert(stage, case):
    texts = []
    for n in range(30):
        frame = record(case, case.target_ct if n < 3 else None, seq=n)
        frame.tool_faults = {"kwire": "its pose repeats to the last bit"} if n >= 3 else {}
        stage.process(frame, Budget(30))
        texts += [a.text for a in frame.alerts if a.kind == "instrument_lost"]
    assert texts == [
        "kwire is no longer seen by the tracker (its pose repeats to the last bit); its distances are unknown"
    ]


def test_a_network_that_does_not_run_where_it_should_is_an_alert_until_it_does(stage, case):
    states = []
    for n, fault in enumerate(["", "instruments.onnx: a GPU failed; the CPU goes on", "instruments.onnx: ...", ""]):
        frame = record(case, seq=n)
        frame.engine_fault = fault
        stage.process(frame, Budget(30))
        states += [(n, a.state, a.kind) for a in frame.alerts]
    assert states == [(1, "raised", "engine"), (3, "cleared", "engine")]


@pytest.mark.parametrize("axis", [[0, -1, 0], [0.3, 0.9, 0.2], [0, 0, -1], [-0.2, 0.1, 0.97]])
def test_right_and_up_are_those_of_somebody_who_looks_along_the_path(axis):
    """Right, up and the way back make a right-handed frame; the head, or the front, is up."""
    axis = np.array(axis) / np.linalg.norm(axis)
    right, up = lateral_axes(axis)
    np.testing.assert_allclose(np.cross(right, up), -axis, atol=1e-12)
    assert right @ up == pytest.approx(0, abs=1e-12) and np.linalg.norm(right) == pytest.approx(1)
    assert up @ ([0, 0, 1] if abs(axis[2]) < 0.9 else [0, -1, 0]) > 0.3


def test_from_behind_the_patients_right_is_on_the_right():
    """A path from back to front, seen from behind: the patient's right hand is on the viewer's right."""
    right, up = lateral_axes(np.array([0.0, -1.0, 0.0]))
    np.testing.assert_allclose(right, [-1, 0, 0])  # LPS: towards the patient's right
    np.testing.assert_allclose(up, [0, 0, 1])
