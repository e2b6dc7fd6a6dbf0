"""The cohort: the truth of its scenes, what the registration is given, and its figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from fluoronav.cli import main
from fluoronav.geometry import Camera, rotation_distance_deg, transform_points
from fluoronav.lab.bench.cohort import SCENES, known_people, render, spec_of
from fluoronav.lab.bench.cohort.bench import bench_cohort
from fluoronav.lab.bench.cohort.given import given_case
from fluoronav.lab.bench.cohort.hardware import screws_and_rods
from fluoronav.lab.bench.cohort.motion import Motion, bent_poses, moved
from fluoronav.lab.bench.cohort.people import VESSELS, person_of
from fluoronav.lab.bench.cohort.physics import BLOOD_HU, CONTRAST_HU, MOST_HU
from fluoronav.lab.bench.cohort.registering import SETTINGS, rotation_bound_deg
from fluoronav.lab.bench.cohort.report import summaries, table, worst
from fluoronav.lab.bench.cohort.scenes import BY_NAME, GivenCt, chosen
from fluoronav.lab.bench.cohort.stream import _rendered as stream_pictures
from fluoronav.lab.bench.cohort.stream import pose_at
from fluoronav.paths import shipped
from fluoronav.stream.frame import RegistrationResult

T8 = 36


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """The embedded case: what there is without a data folder."""
    return known_people(tmp_path_factory.mktemp("no-data"))


@pytest.fixture(scope="module")
def person(people):
    return person_of(people[0])


@pytest.fixture(scope="module")
def region(person):
    return next(r for r in person.regions if r.name == "chest")


@pytest.fixture(scope="module")
def small():
    """The C-arm with pixels four times as wide, which takes a sixteenth of the time."""
    return Camera.load(shipped("calibration/demo-carm.yaml")).scaled(0.25)


def at_in_ct(motion, points):
    """Where places on the table were in the CT, by the field."""
    transform = sitk.DisplacementFieldTransform(sitk.Cast(motion.field, sitk.sitkVectorFloat64))
    return np.array([transform.TransformPoint(p.tolist()) for p in points])


def test_without_data_the_embedded_case_is_the_cohort(person, region):
    assert person.name == "embedded" and person.surroundings is not None
    assert (region.name, region.target) == ("chest", T8) and len(region.rigid) >= 3


@pytest.mark.parametrize("breath_mm", [0.0, 8.0])
def test_a_bent_spines_pose_is_its_deformation_at_every_vertebra(person, region, breath_mm):
    motion = moved(person, region, 6.0, breath_mm, np.random.default_rng(4))
    for label in region.rigid:
        in_ct = person.bone_points_ct(label, 100)
        on_table = transform_points(motion.of_bone(label), in_ct)
        off = np.linalg.norm(at_in_ct(motion, on_table) - in_ct, axis=1)
        assert np.median(off) < 0.05 and off.max() < 0.6
    # The target has moved against the bone below it, which rests.
    assert 0.5 < rotation_distance_deg(motion.of_bone(region.target), np.eye(4)) < 3


def test_a_spine_bends_by_as_many_degrees_as_it_is_long(person, region):
    poses = bent_poses(person, region, 4.0, 0.7)
    ends = min(poses), max(n for n in poses if n < 60)
    length = sum(
        np.linalg.norm(np.mean(person.bone_points_ct(n), 0) - np.mean(person.bone_points_ct(n + 1), 0))
        for n in range(ends[0], ends[1])
    )
    turned = rotation_distance_deg(poses[ends[0]], poses[ends[1]])
    assert turned == pytest.approx(4 * length / 100, rel=0.02)


def test_a_breath_moves_the_organs_and_leaves_the_spine_at_rest(person, region):
    motion = moved(person, region, 0, 12.0, np.random.default_rng(0))
    assert (motion.of_bone(region.target) == np.eye(4)).all()
    spine = person.bone_points_ct(region.target, 200)
    assert np.abs(at_in_ct(motion, spine) - spine).max() < 0.25
    way = np.linalg.norm(sitk.GetArrayFromImage(motion.field), axis=-1)
    assert 9 < way.max() < 12.5


def test_scenes_have_the_truth_of_the_target_bone(people, person, region, small):
    bent = render("bent-4", 3, people, small)
    assert bent.T_camera_ct == pytest.approx(bent.T_camera_table @ bent.motion.of_bone(T8))
    assert rotation_distance_deg(bent.T_camera_ct, bent.T_camera_table) > 0.3
    still = render("screws-6", 3, people, small)
    assert still.T_camera_ct == pytest.approx(still.T_camera_table)
    px = still.camera.project(transform_points(still.T_camera_ct, person.target_ct(region)))
    assert (np.abs(px - 128) < 63).all()


def test_the_same_seed_is_the_same_exposure_and_metal_is_dark(people, small):
    one, again = (render("screws-6", 1, people, small).counts for _ in range(2))
    assert (one == again).all() and one.dtype == np.uint16
    bare = render("chest", 1, people, small)
    # Views are drawn by scene and seed: only the shares are compared.
    dark = [np.mean(c < np.median(c) / 3) for c in (one, bare.counts)]
    assert dark[0] > dark[1]


def test_a_mirrored_picture_and_another_person_have_no_right_pose():
    assert [s.name for s in SCENES if not s.present] == ["mirrored", "other-person"]
    assert len({s.name for s in SCENES}) == len(SCENES)


def test_another_person_needs_two_people(people):
    with pytest.raises(ValueError, match="two people"):
        render("other-person", 0, people)
    with pytest.raises(ValueError, match="no CT shows lumbar"):
        render("lumbar", 0, people)


def test_the_registration_is_given_a_poorer_ct(person, region):
    whole = given_case(person, region, GivenCt(), 0)
    assert whole.labels is not None and whole.rigid_labels == region.rigid
    assert whole.target_ct == pytest.approx(person.target_ct(region), abs=1e-6)
    bare = given_case(person, region, GivenCt(labels=False), 0)
    assert bare.labels is None and bare.rigid_labels == ()
    cube = given_case(person, region, GivenCt(cube_mm=80.0), 0)
    assert np.ptp(cube.ct.corners_ct(), axis=0) == pytest.approx([80] * 3, abs=6)
    assert cube.surroundings is None and set(cube.rigid_labels) < set(region.rigid)
    two = given_case(person, region, GivenCt(vertebrae=2), 0)
    assert two.rigid_labels == (T8 - 1, T8)
    thick = given_case(person, region, GivenCt(slices_mm=(3.0, 5.0)), 1)
    assert thick.ct.image.GetSpacing()[2] == 5
    soft, sharp = (given_case(person, region, GivenCt(kernels=(1.0, -1.0)), k).ct.voxels.std() for k in (0, 1))
    assert soft < person.ct.voxels.std() < sharp


def test_the_ct_may_lack_contrast_and_hold_steel_with_streaks(person, region):
    vessels = np.isin(person.labels.voxels, [*VESSELS]) & (person.ct.voxels > CONTRAST_HU)
    bled = given_case(person, region, GivenCt(contrast=False), 0).ct.voxels
    assert vessels.any() and (bled[vessels] == BLOOD_HU).all()
    np.testing.assert_array_equal(bled[~vessels], person.ct.voxels[~vessels])
    steel = given_case(person, region, GivenCt(screws=6), 0).ct.voxels
    assert (steel == MOST_HU).sum() > 10 * max((person.ct.voxels == MOST_HU).sum(), 50)
    assert (steel < person.ct.voxels - 100.0).mean() > 0.001


def test_thick_slices_stay_where_the_patient_is(person, region):
    """A ramp along the slices keeps its values at their places."""
    ramp = sitk.Image(person.ct.image)
    size = ramp.GetSize()
    ramp = sitk.GetImageFromArray(np.broadcast_to(np.arange(size[2])[:, None, None], size[::-1]).astype(np.int16))
    ramp.CopyInformation(person.ct.image)
    from fluoronav.lab.bench.cohort.given import _with_slices

    thick = _with_slices(ramp, 4.0)
    middle = thick.GetSize()[2] // 2
    at = ramp.TransformPhysicalPointToContinuousIndex(thick.TransformIndexToPhysicalPoint((5, 5, middle)))
    assert thick[5, 5, middle] == pytest.approx(at[2], abs=0.51)


def row(scene="chest", seed=0, across=0.1, believed=True, present=True, **others):
    bounds = {"space_mm": 1.0, "degrees": 0.5, "bound_mm": 0.3, "bound_space_mm": 3.0, "bound_degrees": 0.4}
    return {
        "scene": scene, "seed": seed, "person": "p", "region": "chest", "present": present, "believed": believed,
        "wrong_believed": believed and (not present or across > 2), "status": "tracking" if believed else "searching",
        "reason": "" if believed else "the picture fits the CT poorly", "across_mm": across, **(bounds | others),
    }  # fmt: skip


def test_figures_of_a_scene_are_those_of_what_was_believed():
    rows = [
        row(across=0.1),
        row(across=0.5),
        row(across=9.0, believed=False),
        row("mirrored", across=31, present=False),
    ]
    s = summaries(rows)["scenes"]["chest"]
    assert (s["n"], s["believed"], s["wrong_believed"], s["bound_holds"]) == (3, 2, 0, 0.5)
    assert s["across_mm"] == {"median": pytest.approx(0.3), "p95": pytest.approx(0.48)}
    assert s["rotation_bound_holds"] == 0 and s["space_bound_holds"] == 1
    assert s["reasons"] == {"the picture fits the CT poorly": 1}
    mirrored = summaries(rows)["scenes"]["mirrored"]
    assert mirrored["wrong_believed"] == 1 and mirrored["across_mm"] is None
    text = table({**summaries(rows), "left_out": {"lumbar": "no CT shows lumbar"}})
    assert "2 of 3" in text and "0.30 / 0.48" in text and "no CT shows lumbar" in text


def test_the_worst_are_the_wrong_ones_that_were_believed():
    rows = [
        row(seed=0), row(seed=1, across=5.0), row(seed=2, across=8.0, believed=False), row(seed=3, across=1.0),
        row("mirrored", 4, believed=False, present=False),
    ]  # fmt: skip
    assert [r["seed"] for r in worst(rows, 5)] == [1, 3, 2, 0]


def test_the_bound_of_a_rotation_is_the_stated_one_or_is_not_known():
    result = RegistrationResult(np.eye(4), 0.9, np.array([0.1, 0.1, 0.1, 1, 1, 1]), 3.0, 0.3, 0)
    assert rotation_bound_deg(result) is None
    assert rotation_bound_deg(replace(result, turn_deg=0.28)) == 0.28


def test_a_bound_that_is_not_said_is_no_bound_that_holds():
    rows = [row(bound_degrees=None), row(bound_degrees=0.6), row(bound_degrees=0.4)]
    assert summaries(rows)["all"]["rotation_bound_holds"] == 0.5
    assert summaries(rows[:1])["all"]["rotation_bound_holds"] is None
    assert "not said" in table({**summaries(rows[:1]), "left_out": {}})


def test_the_streams_patient_breathes_and_the_arm_turns():
    target = np.array([0.0, 90, -150])
    start, out = pose_at(target, 0.0)
    _, breathed = pose_at(target, 2.0)
    later, _ = pose_at(target, 5.0)
    assert (out, breathed) == (0, 1)
    assert rotation_distance_deg(start, later) == pytest.approx(15, abs=0.1)


def test_the_streams_patient_may_have_screws_that_stay_with_the_spine(person, region, small):
    steel = screws_and_rods(person, region, 6, Motion({}, None))
    at_start = np.array([0.0])
    (bare,), (truth,) = stream_pictures(person, region, small, at_start, 0, [])
    (dark,), _ = stream_pictures(person, region, small, at_start, 0, steel)
    ends = np.array([p for bar in steel for p in (bar.begin_ct, bar.end_ct)])
    u, v = np.rint(small.project(transform_points(truth, ends))).astype(int).T
    inside = (u > 5) & (u < small.cols - 5) & (v > 5) & (v < small.rows - 5)
    assert inside.sum() > 10
    assert np.median(dark[v[inside], u[inside]] / np.maximum(bare[v[inside], u[inside]], 1.0)) < 0.8


def test_unknown_names_are_refused_by_name(capsys, tmp_path):
    with pytest.raises(ValueError, match="no scene `lumbr`; there are: lumbar, pelvis"):
        chosen(["lumbr"])
    assert main(["bench", "cohort", "--ct", str(tmp_path / "no.nii.gz")]) != 0
    assert "no.nii.gz: no such CT or label map" in capsys.readouterr().err


def test_a_person_is_named_with_ct_and_labels(people):
    _, ct, labels, _ = people[0]
    assert spec_of(f"lee={ct},{labels}") == ("lee", ct, labels)
    assert spec_of(ct) == ("ct", ct)


def test_the_scenes_are_listed(capsys):
    assert main(["bench", "cohort", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in BY_NAME)


def test_a_tiny_cohort_runs_through_a_scheduler_to_the_end(people, tmp_path):
    from distributed import LocalCluster

    from fluoronav.lab.bench.cohort.pictures import write_pictures

    # Threads of this process stand for a cluster's workers, so that the CT is read once.
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        result = bench_cohort(chosen(["chest", "lumbar"]), 1, 2, people, cluster.scheduler_address, 1)
    found = json.loads(json.dumps(result))
    chest = found["scenes"]["chest"]
    assert (chest["n"], chest["believed"], chest["wrong_believed"]) == (1, 1, 0)
    assert chest["across_mm"]["median"] < SETTINGS.wrong_mm / 4
    assert "lumbar" in found["left_out"] and found["all"]["n"] == 1
    path, side_by_side = write_pictures(found["rows"], people, tmp_path)
    assert path.stat().st_size > 20_000 and side_by_side.stat().st_size > 2_000


def test_a_process_that_fails_is_named_with_its_scene_and_seed(people):
    from fluoronav.lab.bench.cohort.registering import measured
    from fluoronav.lab.bench.cohort.running import rows_of

    with pytest.raises(RuntimeError, match=r"scene lumbar, seed 7: ValueError: scene lumbar: no CT shows lumbar"):
        list(rows_of([[("lumbar", 7)]], measured, people, None, 2, lambda text: None))


def test_a_scheduler_that_does_not_answer_is_named(people, monkeypatch):
    from fluoronav.lab.bench.cohort import running

    monkeypatch.setattr(running, "_START_S", 0.2)
    with pytest.raises(RuntimeError, match=r"--scheduler tcp://127.0.0.1:9: no Dask scheduler answers"):
        bench_cohort(chosen(["chest"]), 1, 0, people, "tcp://127.0.0.1:9", 1)
