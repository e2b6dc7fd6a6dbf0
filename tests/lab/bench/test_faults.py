"""The bench of faults: what its judge calls a breach and what not, how it reads the rows, and two rows live."""

import json
import time

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.cli import main
from fluoronav.lab.bench.faults.bench import FAULTS, chosen
from fluoronav.lab.bench.faults.command import Ended, all_of, fluoronav, named, refusal, refused_with
from fluoronav.lab.bench.faults.gateway import HEAD, Client, Gateway, at, crc64, message, transform
from fluoronav.lab.bench.faults.judge import Exposure, Judge, Outside, Promised, Verdict, not_finite
from fluoronav.lab.bench.faults.loop import Heard
from fluoronav.lab.bench.faults.row import Fault, Outcome, row_failed, row_not_run, row_of, table
from fluoronav.lab.bench.faults.scans import case_id, crop, enhanced, exact_ct, slices
from fluoronav.lab.bench.faults.window import complaint, not_tracking_from, steady_from

PERIOD_S = 1 / 15
T0 = 1_700_000_000.0
IDENTITY = np.eye(4)
TARGET = (0.0, 0.0, 600.0)


def judge(**promised):
    return Judge(Promised(**promised), PERIOD_S, TARGET, {"cord": (2.5, 1.0)})


def exposure(t=T0, distance_mm=1.2, T_camera_ct=IDENTITY):
    return Exposure(t, 1, T_camera_ct, np.zeros(3), {"cord": distance_mm})


def overlay(t=T0, status="tracking", moved_mm=0.0, missed=False, overload=0, distances=(), tip=(0.0, 0.0, 0.0), **pose):
    T = np.eye(4)
    T[0, 3] = moved_mm
    registration = {"T_camera_ct": T.ravel().tolist(), "tre_mm": 2.0, "tre_image_mm": 0.4, "age": 0} | pose
    return {
        "seq": 1, "t_sent": int((t + 0.02) * 1e9), "missed": missed, "dropped": {"overload": overload},
        "status": status, "registration": registration, "distances": list(distances),
        "instruments": [{"id": "kwire", "origin": "tracker", "tip_ct": list(tip)}],
    }  # fmt: skip


def alarm(state, priority="high", distance_mm=1.2, **change):
    return {
        "id": "proximity/kwire/cord/1", "kind": "proximity", "state": state, "priority": priority,
        "instrument": "kwire", "structure": "cord", "distance_mm": distance_mm, "lower_mm": distance_mm, "text": "said",
    } | change  # fmt: skip


def health(state="running", **more):
    return {"state": state} | more


def rules(j):
    return [b.rule for b in j.breaches]


def run(j, seconds, t=T0, late_each=0, **what):
    """Overlays as they come; returns when the last one came."""
    for k in range(round(seconds / PERIOD_S)):
        t += PERIOD_S
        j.overlay(t, overlay(t, missed=bool(late_each) and k % late_each == 0, **what), exposure(t))
    return t


def all_well(t):
    return Outside(t, t)


# 1. The pose


def test_a_pose_of_this_frame_is_good():
    j = judge()
    assert j.overlay(T0, overlay(), exposure()) == Verdict(pose=True, tool=True)
    assert not j.breaches


def test_a_pose_that_is_older_than_300_ms_must_not_be_called_tracking():
    for age in ({"age_ms": 301.0}, {"age": 5}):
        j = judge()
        assert not j.overlay(T0, overlay(**age), exposure()).pose
        assert rules(j) == ["age"]
    for age in ({"age_ms": 299.0, "age": 5}, {"age": 4}):
        j = judge()
        assert j.overlay(T0, overlay(**age), exposure()).pose
        assert not j.breaches


def test_an_old_pose_may_be_called_degraded_or_lost():
    for status in ("degraded", "lost", "searching"):
        j = judge()
        assert not j.overlay(T0, overlay(status=status, age_ms=5000.0), exposure()).pose
        assert not j.breaches


def test_tracking_needs_a_pose():
    j = judge()
    j.overlay(T0, overlay() | {"registration": None}, exposure())
    assert rules(j) == ["age"]


def test_an_overlay_that_leaves_late_must_say_so():
    late = overlay(T0 + 0.7)
    j = judge()
    j.overlay(T0 + 0.7, late, exposure(T0))
    assert rules(j) == ["age"]
    j = judge()
    j.overlay(T0 + 0.7, late | {"missed": True}, exposure(T0))
    assert not j.breaches


def test_a_wrong_pose_is_a_breach_after_300_ms_and_not_before():
    j = judge()
    for k in range(4):  # 3.2 mm are allowed at a bound of 0.4
        j.overlay(T0 + k * PERIOD_S, overlay(T0 + k * PERIOD_S, moved_mm=3.3), exposure(T0 + k * PERIOD_S))
    assert not j.breaches
    j.overlay(T0 + 0.34, overlay(T0 + 0.34, moved_mm=3.3), exposure(T0 + 0.34))
    assert rules(j) == ["wrong"]


def test_an_error_within_three_bounds_and_2_mm_is_no_breach():
    j = judge()
    run(j, 2, moved_mm=3.1)
    assert not j.breaches


# 2. The alarm


def test_an_alarm_that_is_cleared_without_a_distance_is_a_breach():
    for distance in (None, float("inf"), float("nan")):
        j = judge()
        j.alert(T0, alarm("raised"))
        j.alert(T0 + 1, alarm("cleared", distance_mm=distance))
        assert rules(j) == ["level"]


def test_an_alarm_whose_distance_becomes_unknown_may_change_at_its_level():
    j = judge()
    j.alert(T0, alarm("raised"))
    j.alert(T0 + 1, alarm("changed", distance_mm=None))
    assert not j.breaches and j.open


def test_an_alarm_that_is_lowered_by_a_glitch_is_a_breach_by_the_truth():
    j = judge()
    j.overlay(T0, overlay(), exposure(distance_mm=1.2))
    j.alert(T0, alarm("raised"))
    j.alert(T0 + 1, alarm("cleared", distance_mm=99_930.0))
    assert rules(j) == ["level"]


def test_an_alarm_that_is_cleared_because_the_tool_went_away_is_right():
    j = judge()
    j.alert(T0, alarm("raised"))
    j.overlay(T0 + 1, overlay(), exposure(distance_mm=9.0))
    j.alert(T0 + 1, alarm("changed", priority="medium", distance_mm=2.0))
    j.alert(T0 + 2, alarm("cleared", distance_mm=9.0))
    assert not j.breaches and not j.open


def test_an_overlay_that_says_clear_where_the_truth_is_caution_is_a_breach():
    far = {"instrument": "kwire", "structure": "cord", "distance_mm": 1e5, "level": "clear"}
    j = judge()
    j.overlay(T0, overlay(distances=[far]), exposure(distance_mm=1.2))
    assert rules(j) == ["level"]
    j = judge()
    j.overlay(T0, overlay(distances=[far]), exposure(distance_mm=9.0))
    assert not j.breaches


def test_another_case_may_end_the_alarms_of_the_one_before():
    j = judge()
    j.alert(T0, alarm("raised"))
    j.health(T0 + 0.1, health("ready", loading="second"), all_well(T0))
    j.alert(T0 + 1, alarm("cleared", distance_mm=None))
    assert not j.breaches


def test_health_must_list_an_open_alarm_where_it_lists_any():
    j = judge()
    j.health(T0, health("ready", instance="a", alerts=[]), all_well(T0))
    j.alert(T0, alarm("raised", instance="a"))
    j.health(T0 + 0.5, health("ready", instance="a", alerts=[]), all_well(T0))  # both may be on their way
    assert not j.breaches
    j.health(T0 + 1.5, health("ready", instance="a", alerts=[]), all_well(T0))
    assert rules(j) == ["level"]


def test_alarms_of_another_instance_are_dropped():
    j = judge()
    j.health(T0, health("ready", instance="a", alerts=[]), all_well(T0))
    j.alert(T0, alarm("raised", instance="a"))
    j.health(T0 + 2, health("ready", instance="b", alerts=[alarm("raised", id="2", instance="b")]), all_well(T0))
    assert not j.breaches
    assert list(j.open) == [("b", "2")]


# 3. Running


def test_running_is_right_while_all_is_delivered():
    j = judge()
    t = run(j, 11)
    j.health(t, health(), all_well(t))
    assert not j.breaches


@pytest.mark.parametrize("status", ["searching", "lost", "no_model"])
def test_running_without_a_pose_for_more_than_two_seconds_is_a_breach(status):
    j = judge()
    t = run(j, 3)
    t = run(j, 2.0, t, status=status)
    j.health(t, health(), all_well(t))
    assert not j.breaches
    t = run(j, 0.5, t, status=status)
    j.health(t, health("degraded"), all_well(t))
    assert not j.breaches
    j.health(t, health(), all_well(t))
    assert rules(j) == ["running"]


def test_without_a_registration_stage_no_pose_is_promised():
    j = judge(registration=False)
    t = run(j, 5, status="no_model")
    j.health(t, health(), all_well(t))
    assert not j.breaches


def test_running_while_a_fifth_of_the_frames_is_late_is_a_breach():
    j = judge()
    t = run(j, 11, late_each=5)
    j.health(t, health(), all_well(t))
    assert rules(j) == ["running"]


def test_one_bad_second_is_no_breach():
    j = judge()
    t = run(j, 11)
    t = run(j, 0.5, t, late_each=1)
    j.health(t, health(), all_well(t))
    assert not j.breaches


def test_running_while_most_frames_are_skipped_is_a_breach():
    j = judge()
    t = run(j, 11, overload=2)
    j.health(t, health(), all_well(t))
    assert rules(j) == ["running"]


def test_running_without_the_promised_tracker_is_a_breach():
    for promised, expected in ((True, ["running"]), (False, [])):
        j = judge(tracker=promised)
        t = run(j, 4)
        j.health(t, health(), Outside(frames_at=t, tools_at=T0))
        assert rules(j) == expected


def test_running_without_frames_is_a_breach():
    j = judge()
    t = run(j, 4)
    j.health(t + 1, health(), Outside(frames_at=t, tools_at=t + 1))
    assert rules(j) == ["running"]


def test_a_silent_health_is_a_breach():
    j = judge()
    j.health(T0, health("ready"), all_well(T0))
    j.health(T0 + 3.2, health("ready"), all_well(T0 + 3.2))
    assert rules(j) == ["running"]


def test_numbers_that_are_not_finite_are_found_wherever_they_are():
    assert not_finite({"a": [1.0, {"b": float("inf")}]}) == "a.1.b"
    assert not_finite({"a": [1.0, None, "nan", 2]}) == ""
    j = judge()
    j.overlay(T0, overlay(distances=[]) | {"t": [float("nan")]}, exposure())
    assert rules(j) == ["finite"]


def test_breaches_are_told_once_for_each_rule_from_a_moment_on():
    j = judge()
    run(j, 1, age_ms=900.0)
    (line,) = j.since(T0)
    assert line == "a pose of 900 ms ago is called tracking (and 14 more in 0.9 s)"
    assert j.since(T0 + 60) == []


# When it is over


def heard(*good, tool=True):
    return [Heard(T0 + k, "overlay", {}, Verdict(g, g and tool)) for k, g in enumerate(good)]


def test_it_is_over_with_the_first_of_eight_good_overlays_in_a_row():
    assert steady_from(heard(*[True] * 7, False, *[True] * 8)) == T0 + 8
    assert steady_from(heard(*[True] * 7, False, *[True] * 7)) is None
    assert steady_from(heard(*[True] * 8, tool=False)) is None
    assert steady_from(heard(*[True] * 8, tool=False), tool=False) == T0


def statuses(*names):
    return [Heard(T0 + k, "overlay", {"status": s}, Verdict(False, False)) for k, s in enumerate(names)]


def test_one_overlay_that_does_not_say_tracking_has_not_said_it():
    assert not_tracking_from(statuses("tracking", "degraded", "tracking", *["degraded", "lost"] * 2)) is None
    assert not_tracking_from(statuses("tracking", "degraded", "tracking", *["degraded"] * 5)) == T0 + 3


def test_a_complaint_is_the_same_whatever_its_figures():
    before = complaint({"state": "degraded", "reason": "47 % of the last 43 overlays were late"})
    assert complaint({"state": "degraded", "reason": "5.5 % of the last 9 overlays were late"}) == before
    assert complaint({"state": "degraded", "reason": "nothing was ever heard of the tracker"}) != before


# Rows


FAULT = Fault("a-fault", "this", lambda place: Outcome())


def test_a_row_is_ok_without_problems_and_not_ok_with_one():
    fine = row_of(FAULT, Outcome(said_after_ms=12.34, lost_frames=3))
    assert fine == {"name": "a-fault", "ok": True, "said_after_ms": 12.3, "recovered_after_ms": None, "lost_frames": 3,
                    "expected": "this", "seen": "as expected"}  # fmt: skip
    assert row_of(FAULT, Outcome(["that"], seen="it"))["seen"] == "that (it)"
    assert row_failed(FAULT, "it broke")["ok"] is False
    assert row_not_run(FAULT, "no root")["ok"] is None


def test_the_table_counts_what_is_ok_and_what_not():
    text = table([row_of(FAULT, Outcome()), row_failed(FAULT, "it broke"), row_not_run(FAULT, "no root")])
    assert text.endswith("1 ok, 1 not ok, 1 not run; said and over in s")
    assert "NOT OK" in text and "it broke" in text


def test_faults_have_names_of_their_own_and_are_chosen_in_the_bench_s_order():
    names = [f.name for f in FAULTS]
    assert len(set(names)) == len(names)
    assert [f.name for f in chosen([names[5], names[2]])] == [names[2], names[5]]
    assert chosen([]) == FAULTS
    with pytest.raises(ValueError, match="no fault is named 'nonsense'"):
        chosen(["nonsense"])


# Commands


def ended(code, text, seconds=1.0, peak_mb=200.0):
    return Ended(code, text, seconds, peak_mb)


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (ended(0, "CT 3 x 3 x 3"), "accepted"),
        (ended(1, "Traceback (most recent call last)\nValueError: unit"), "a traceback"),
        (ended(1, "ct.nrrd: is odd"), "refused without a word of unit"),
        (ended(None, "reading", seconds=60), "no end after 60 s"),
        (ended(None, "reading", peak_mb=4100), "4100 MB of memory"),
        (ended(-9, ""), "ended by signal 9"),
        (ended(1, "its unit is cm", seconds=31), "only after 31 s"),
    ],
)
def test_what_is_no_refusal(how, problem):
    assert refusal(how, "unit").problems == [problem]


def test_a_refusal_in_words_is_ok_and_so_is_a_word_where_that_is_enough():
    assert refusal(ended(1, "Its UNIT is cm"), "unit").problems == []
    assert named(ended(0, "note: sform and qform differ"), "sform").problems == []
    assert named(ended(0, "CT 3 x 3 x 3"), "sform").problems == ["accepted without a word"]


def test_a_refusal_may_have_to_name_several_things():
    how = ended(1, "ct/0007.dcm: PixelSpacing (0028,0030) is empty")
    assert refused_with(how, "0007.dcm", "pixelspacing").problems == []
    assert refused_with(how, "0008.dcm", "PixelSpacing").problems == ["refused without the word 0008.dcm"]
    assert refused_with(ended(0, "0007.dcm PixelSpacing"), "0007.dcm", "PixelSpacing").problems == ["accepted"]


def test_a_row_of_several_parts_names_the_part_that_is_wrong():
    both = all_of({"in cm": Outcome(["accepted"], seen="a case"), "in m": Outcome(said_after_ms=70.0, seen="refused")})
    assert both == Outcome(["in cm: accepted"], said_after_ms=70.0, seen="in cm: a case; in m: refused")
    assert all_of({"in cm": Outcome(), "in m": Outcome()}) == Outcome()


@pytest.mark.parametrize(
    ("text", "id"), [("case odd@0123\nCT 80 x 90 x 20 voxels", "odd@0123"), ("  reading ct\n", None)]
)
def test_the_id_is_that_of_a_case_that_was_built(text, id):
    assert case_id(ended(0, text)) == id
    assert case_id(ended(1, text)) is None


def test_a_command_is_run_and_its_refusal_read(tmp_path):
    how = fluoronav("case", "build", tmp_path / "none.yaml", folder=tmp_path)
    assert how.code == 1
    assert refusal(how, "cannot be read").problems == []
    assert refusal(fluoronav("--version", folder=tmp_path), "version").problems == ["accepted"]


def test_a_command_that_goes_on_is_ended(tmp_path):
    how = fluoronav("bridge", "igtl", "--endpoint", "ipc://" + str(tmp_path / "tools"), folder=tmp_path, seconds=0.5)
    assert how.code is None


# Scans


def test_slices_hold_the_scan_s_place_and_values_exactly():
    ct = exact_ct((0.5, 1.0, 2.5))
    series = slices(ct)
    assert len({s.SOPInstanceUID for s in series}) == len(series) == ct.GetSize()[2]
    assert list(map(float, series[3].PixelSpacing)) == [1.0, 0.5]
    assert list(map(float, series[3].ImagePositionPatient)) == list(ct.TransformIndexToPhysicalPoint((0, 0, 3)))
    stored = np.frombuffer(series[3].PixelData, "<u2").reshape(series[3].Rows, series[3].Columns)
    np.testing.assert_array_equal(stored + float(series[3].RescaleIntercept), sitk.GetArrayFromImage(ct)[3])


def test_the_frames_of_an_enhanced_ct_do_not_lie_as_they_are_numbered():
    series = slices(crop("ct"))
    whole = enhanced(series)
    frames = whole.PerFrameFunctionalGroupsSequence
    z = [float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in frames]
    assert whole.NumberOfFrames == len(series) == len(z) and z != sorted(z)
    assert "ImagePositionPatient" not in whole and "RescaleSlope" not in whole
    assert series[0].file_meta.MediaStorageSOPClassUID != whole.file_meta.MediaStorageSOPClassUID


# OpenIGTLink


def test_the_checksum_is_that_of_ecma_182():
    assert crc64(b"123456789") == 0x6C40DF5F0B497347


def test_a_client_hears_what_a_gateway_plays_and_notices_its_end():
    said = message("TRANSFORM", "StylusToTracker", transform(at(1, 2, 3)))
    assert HEAD.unpack_from(said)[5:] == (48, crc64(said[HEAD.size :]))
    gateway = Gateway(lambda send, connection: send(said))
    client = Client(gateway.port)
    try:
        for _ in range(500):
            if client.ends:
                break
            time.sleep(0.01)
        assert client.heard[0] == ("TRANSFORM", b"StylusToTracker", said[HEAD.size :])
        assert client.ends
    finally:
        client.close()
        gateway.close()


# Live


def test_the_verb_lists_its_faults_and_refuses_one_that_it_does_not_know(capsys):
    assert main(["bench", "faults", "--list"]) == 0
    assert "tool-glitch-100m" in capsys.readouterr().out
    assert main(["bench", "faults", "--only", "nonsense"]) == 1
    assert "--list" in capsys.readouterr().err


def test_two_rows_live_and_the_exit_status_says_whether_all_are_ok(tmp_path, capsys):
    path = tmp_path / "faults.json"
    status = main(["bench", "faults", "--only", "ct-is-mr", "ct-without-rescale", "--json", str(path)])
    result = json.loads(path.read_text())
    assert [r["name"] for r in result["faults"]] == ["ct-is-mr", "ct-without-rescale"]
    assert {"processor", "cores", "system", "version"} <= set(result)
    assert all("stumbled" not in r["seen"] and "fluoronav-faults-" not in r["seen"] for r in result["faults"])
    assert status == int(not all(r["ok"] for r in result["faults"]))
    assert "ct-is-mr" in capsys.readouterr().out


FILES = (
    "nifti-sheared", "camera-larger-than-its-k", "empty-dicom-tags", "enhanced-ct", "enhanced-ct-beside-strays",
    "unreadable-slices", "slice-of-another-plane", "non-square-pixels", "ct-larger-labels-mirrored",
    "case-id-covers-geometry", "poisoned-distance-cache", "tool-in-metres", "bone-white-cr", "register-options-exist",
)  # fmt: skip


def test_every_file_that_is_not_what_it_looks_like_has_a_row_of_its_own():
    assert {f.name for f in chosen(FILES)} == set(FILES)


def test_files_that_are_refused_or_read_right_are_ok_live(tmp_path):
    path = tmp_path / "faults.json"
    rows = ["non-square-pixels", "unreadable-slices", "poisoned-distance-cache"]
    assert main(["bench", "faults", "--only", *rows, "--json", str(path)]) == 0
    seen = {r["name"]: r for r in json.loads(path.read_text())["faults"]}
    assert list(seen) == ["unreadable-slices", "non-square-pixels", "poisoned-distance-cache"]
    assert all(r["ok"] for r in seen.values())
    assert set(seen["unreadable-slices"]) == {
        "name", "ok", "said_after_ms", "recovered_after_ms", "lost_frames", "expected", "seen",
    }  # fmt: skip
