"""Registration on simulated exposures of the real CT, through an X-ray model that it does not know."""

import threading

import cv2
import numpy as np
import pytest
from tests.stream.registration.rig import Arm, Rig, errors, exposed, shown_at

from fluoronav.geometry import ArmJoints, inverse, moved_about
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.registration.states import State


def test_the_pose_is_found_from_the_prior_alone_and_then_followed(rig, case, exposures):
    first = rig.show(exposures[0][0])
    assert first.status == "searching" and first.registration is None
    for counts, truth in exposures:
        for _ in range(3):
            frame = rig.show(counts)
        assert frame.status == "tracking"
        across, along = errors(case, frame.registration.T_camera_ct, truth)
        assert across < 1.0 and along < 6
        assert frame.registration.tre_image_mm < frame.registration.tre_mm
        assert frame.registration.sigma[5] > frame.registration.sigma[3]  # depth is the least certain


@pytest.mark.parametrize(
    "field", [{"collimator_fraction": 0.6}, {"collimator_fraction": 0.3}, {"aperture_fraction": 0.6}]
)
def test_a_field_narrowed_to_half_or_a_quarter_of_the_image_is_registered(case, camera, beams, field):
    """Regression: with the blades at 0.6 all was taken for seen, and in what lies behind them no pose was found."""
    rig = Rig(case, camera)
    for counts, truth in exposed(beams[:2], camera, **field):
        for _ in range(3):
            frame = rig.show(counts)
        assert frame.status == "tracking"
        assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1.0
    rig.registration.close()


def test_noise_is_never_called_a_pose_and_the_search_goes_on(rig, rng):
    noise = (8000 + 6000 * rng.random((1024, 1024))).astype(np.uint16)
    for _ in range(4):
        frame = rig.show(noise)
        assert frame.registration is None and frame.status == "searching"


def test_a_pose_that_is_lost_is_said_to_be_lost_and_found_again(rig, case, exposures, rng):
    counts, truth = exposures[0]
    rig.show(counts)
    assert rig.show(counts).status == "tracking"
    covered = (8000 + 6000 * rng.random((1024, 1024))).astype(np.uint16)
    shown = [rig.show(covered, wait=False) for _ in range(3)]
    assert shown[0].registration is None or shown[0].registration.age > 0
    assert [f.status for f in shown[1:]] == ["lost", "lost"] and shown[1].registration is None
    rig.registration.jobs.search.exception()
    for _ in range(4):
        frame = rig.show(counts)
    assert frame.status == "tracking"
    assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1.0


def test_without_time_the_last_pose_is_handed_on_with_its_age(rig, exposures):
    counts, _ = exposures[0]
    rig.show(counts)
    fresh = rig.show(counts)
    late = rig.show(counts, milliseconds=0.5)
    later = rig.show(counts, milliseconds=0.5)
    assert (fresh.registration.age, late.registration.age, later.registration.age) == (0, 1, 2)
    np.testing.assert_array_equal(late.registration.T_camera_ct, fresh.registration.T_camera_ct)


def test_gain_offset_and_inverted_polarity_do_not_matter(case, camera, exposures):
    counts, truth = exposures[0]
    rig = Rig(case, camera)
    altered = 65535 - (0.6 * counts.astype(np.float64) + 1500).astype(np.uint16)
    for _ in range(3):
        frame = FrameRecord.of_counts(altered, seq=1, inverse=True)
        rig.attenuation.process(frame, Budget(1000))
        rig.registration.process(frame, Budget(1000))
        if rig.registration.jobs.search:
            rig.registration.jobs.search.exception()
    rig.registration.close()
    assert frame.status == "tracking"
    assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1.0


def test_the_bounds_hold_for_refinements_from_many_starts(rig, case, exposures, rng):
    rig.show(exposures[0][0])
    within = []
    for counts, truth in exposures:
        for _ in range(4):
            twist = np.concatenate([np.deg2rad(rng.normal(0, 0.5, 3)), rng.normal(0, 0.6, 3)])
            rig.registration._T_camera_ct = inverse(moved_about(case.target_ct, twist) @ inverse(truth))
            rig.registration._machine.state = State.SETTLING
            rig.registration._measurement.settling, rig.registration._comparison.agreement = 2, 1.0
            frame = rig.show(counts)
            across, along = errors(case, frame.registration.T_camera_ct, truth)
            within.append(
                (across < frame.registration.tre_image_mm, np.hypot(across, along) < frame.registration.tre_mm)
            )
    assert np.mean(within, axis=0).min() >= 0.8


def test_a_spine_one_vertebra_off_is_not_called_tracking_and_is_put_right(rig, case, exposures):
    """The wrong level: it fits many of its own patches, and is the mistake a surgeon fears most."""
    counts, truth = exposures[2]
    rig.show(counts)
    frame = rig.show(counts)
    for shift in (24.0, -24.0):
        wrong = np.array(truth)
        wrong[1, 3] += shift
        rig.registration.adopt(wrong, frame)
        rig.show(counts)
        frame = rig.show(counts)
        for _ in range(8):
            claimed_wrongly = frame.status == "tracking" and errors(case, frame.registration.T_camera_ct, truth)[0] > 3
            assert not claimed_wrongly
            frame = rig.show(counts)
        assert frame.status == "tracking"
        assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1.0


def test_jobs_that_all_ended_in_a_stall_leave_the_patches_of_the_pose_that_was_found(rig, exposures):
    """Patches were being placed when the pose was lost; no frame came until the new search had ended too."""
    counts, truth = exposures[0]
    rig.show(counts)
    frame = rig.show(counts)
    stage = rig.registration
    elsewhere = np.array(truth)
    elsewhere[0, 3] += 30
    stage.jobs.placing = stage.jobs.thread.submit(
        stage.patch_sets.place, stage.patch_sets.other, elsewhere, np.ones((128, 128), bool)
    )
    stage.restart("lost")
    stage.jobs.placing.result()
    stage._start_search(frame)
    stage.jobs.search.result()
    of_the_search = stage.patch_sets.other
    frame = rig.show(counts)
    assert frame.registration is not None
    assert stage.patch_sets.in_use is of_the_search


def test_a_pose_that_drifts_is_checked_although_its_patches_are_placed_all_the_time(rig, exposures):
    """The placing of patches used to keep the background busy, and a wrong pose unjudged."""
    counts, truth = exposures[2]
    rig.show(counts)
    frame = rig.show(counts)
    wrong = np.array(truth)
    wrong[1, 3] += 24
    rig.registration.adopt(wrong, frame)
    rig.registration.patch_sets.in_use.T_camera_ct = np.eye(4)  # far from where the pose is: placing is due, too
    rig.show(counts, wait=False)
    assert rig.registration.jobs.check is not None and rig.registration.jobs.placing is None


def test_jumps_of_5_mm_and_3_degrees_a_frame_are_followed(rig, case, camera, rng):
    """What is called tracking on the way is within 3 mm, and when the patient stops the pose is as good as ever."""
    anatomy, chain = Anatomy(case, camera.scaled(0.5)), ImageChain(FlatPanel(photons=40), camera.rows, camera.cols, 3)
    T = Scenario().poses(case)[10]

    def exposed(T, k):
        beam = anatomy.transmission(*anatomy.paths(T))
        return chain.counts(cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC), k)

    rig.registration.adopt(T, rig.show(exposed(T, 0)))
    for k in range(6):
        turn, shift = rng.standard_normal(3), rng.standard_normal(3)
        twist = np.concatenate(
            [np.deg2rad(3) * turn / np.linalg.norm(turn), (-1) ** k * 5 * shift / np.linalg.norm(shift)]
        )
        T = inverse(moved_about(case.target_ct, twist) @ inverse(T))
        counts = exposed(T, k + 1)
        frame = rig.show(counts)
        assert frame.status != "tracking" or errors(case, frame.registration.T_camera_ct, T)[0] < 3
    for _ in range(3):
        frame = rig.show(counts)
    assert frame.status == "tracking" and errors(case, frame.registration.T_camera_ct, T)[0] < 1


def test_a_change_of_gain_and_a_bolus_of_contrast_agent_do_not_move_the_pose(rig, case, exposures):
    """Twice the exposure from one frame to the next, and then a vessel filled with contrast agent across the spine."""
    counts, truth = exposures[1]
    rig.show(counts)
    frame = rig.show(counts)
    rig.registration.adopt(truth, frame)
    for _ in range(3):
        frame = rig.show(counts)
    vessel = np.ones(counts.shape, np.float32)
    cv2.line(vessel, (300, 100), (700, 900), 0.55, 40)
    vessel = cv2.GaussianBlur(vessel, (0, 0), 4)
    for changed in (counts / 2, counts * vessel, np.minimum(counts * 1.9, 65535)):
        frame = rig.show(changed.astype(np.uint16))
        assert frame.registration is not None
        assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_a_frame_that_is_partly_saturated_keeps_the_pose_and_one_that_is_wholly_saturated_gives_none(
    rig, case, exposures, share
):
    counts, truth = exposures[1]
    rig.show(counts)
    frame = rig.show(counts)
    rig.registration.adopt(truth, frame)
    frame = rig.show(counts)
    field_mask = cv2.resize(frame.field_mask.astype(np.uint8), counts.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    bright = counts.astype(float) * 65535 / np.quantile(counts[field_mask], 1 - share)
    over = np.minimum(bright, 65535).astype(np.uint16)
    assert (over[field_mask] == 65535).mean() > 0.9 * share
    for _ in range(3):
        frame = rig.show(over)
        assert frame.status in ("tracking", "degraded")
        assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1
    for _ in range(3):
        frame = rig.show(np.full_like(counts, 65535))
        assert frame.registration is None or frame.status != "tracking"
    for _ in range(3):
        frame = rig.show(counts)
    assert frame.status == "tracking" and errors(case, frame.registration.T_camera_ct, truth)[0] < 1


def test_the_c_arm_turns_and_the_views_sharpen_the_depth(rig, case, camera):
    arm = Arm(case, camera)
    alone, fused = [], []
    for orbital in (0.0, 35.0, 0.0):
        counts, joints, truth = arm.shot(orbital)
        for _ in range(4):
            frame = rig.show(counts, joints=joints)
        assert frame.status == "tracking"
        across, along = errors(case, frame.registration.T_camera_ct, truth)
        assert across < 0.6
        (fused if orbital == 0.0 and alone else alone).append(
            (frame.registration.sigma[5], frame.registration.tre_mm, along)
        )
    assert fused[0][0] < 0.9 * alone[0][0] and fused[0][1] < 0.9 * alone[0][1]
    assert fused[0][2] < 1.96 * fused[0][0]


def test_joints_carry_the_pose_through_a_turn_that_no_tracking_could_follow(rig, case, camera):
    arm = Arm(case, camera)
    for orbital, joints_known in ((0.0, True), (30.0, True), (0.0, False)):
        counts, joints, truth = arm.shot(orbital)
        for _ in range(1 if orbital else 4):
            frame = rig.show(counts, joints=joints if joints_known else None)
        if orbital:  # the very first frame from the new side
            assert frame.registration is not None
            assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1.0


def test_joints_that_lie_cost_no_pose(rig, case, camera, exposures):
    counts, truth = exposures[0]
    for _ in range(4):
        rig.show(counts, joints=ArmJoints(0.0, 0.0))
    for orbital in (25.0, -40.0, 0.0):  # the picture stays as it is
        frame = rig.show(counts, joints=ArmJoints(orbital, 10.0))
        assert frame.registration is not None and frame.status in ("tracking", "degraded")
        assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1.0


def test_a_search_looks_where_the_joints_say_that_the_arm_stands(rig, case, camera):
    """From the side the prior is 80 degrees off: without the joints it takes two searches, the second a long one."""
    counts, joints, truth = Arm(case, camera).shot(75.0)
    for _ in range(5):
        frame = rig.show(counts, joints=joints)
    assert frame.status == "tracking"
    assert errors(case, frame.registration.T_camera_ct, truth)[0] < 1.0


def test_one_slow_iteration_does_not_shut_the_door_to_all_others(rig, exposures):
    """Regression: the computer stood still for 0.7 s, and no pose was measured ever again."""
    counts, _ = exposures[0]
    for k in range(4):
        frame = shown_at(rig, counts, 33 * k)
    assert frame.status == "tracking"
    rig.registration._measurement.iteration_ms = 1e4
    ages = [shown_at(rig, counts, 33 * (4 + k), milliseconds=30).registration.age for k in range(12)]
    assert max(ages) <= 2 and ages.count(0) >= 4
    taught = rig.registration._measurement.iteration_ms
    assert taught < 5e3


def test_a_pose_that_is_handed_on_grows_older_and_less_certain_and_is_lost_in_the_end(rig, exposures):
    """Regression: `tracking`, 0.4 mm, for as long as nobody measured."""
    counts, _ = exposures[0]
    for k in range(4):
        fresh = shown_at(rig, counts, 33 * k)
    assert fresh.status == "tracking" and fresh.registration.age_ms == 0
    held = [shown_at(rig, counts, 99 + 33 * k, unchanged_ms=33.0 * k) for k in range(1, 70)]
    for frame in held:
        if frame.registration is None:
            continue
        assert frame.registration.age_ms == pytest.approx((frame.t_acq - fresh.t_acq) / 1e6)
        assert frame.status == "tracking" if frame.registration.age_ms <= 200 else frame.status == "degraded"
    bounds = [f.registration.tre_image_mm for f in held if f.registration is not None]
    assert bounds == sorted(bounds) and bounds[0] > fresh.registration.tre_image_mm
    # A deep breath, 10 mm a second: 95 % of 1.8 mm across the ray in 180 ms.
    assert bounds[4] > 3
    assert held[-1].status == "lost" and held[-1].registration is None and "does not change" in held[-1].status_reason
    # The picture is live again: the patient is looked for first where it was.
    statuses = [shown_at(rig, counts, 3000 + 33 * k).status for k in range(3)]
    assert statuses[-1] == "tracking"


def test_a_comparison_with_the_whole_field_that_is_old_says_nothing(rig, exposures):
    counts, _ = exposures[0]
    for k in range(4):
        frame = shown_at(rig, counts, 33 * k)
    assert frame.status == "tracking"
    rig.registration._comparison.checked_at = float("inf")  # the background has no time for it
    frame = shown_at(rig, counts, 99 + 5100)
    assert frame.status == "degraded" and "compared" in frame.status_reason


@pytest.mark.parametrize("change", ["mirrored", "upside down", "turned"])
def test_a_picture_that_is_flipped_in_mid_stream_is_never_called_tracking(rig, exposures, change):
    """Regression: 15.8 s of `tracking` after the C-arm's flip button."""
    counts, _ = exposures[0]
    flipped = {"mirrored": counts[:, ::-1], "upside down": counts[::-1], "turned": np.rot90(counts)}[change]
    for k in range(4):
        frame = shown_at(rig, counts, 33 * k)
    assert frame.status == "tracking"
    frames = [shown_at(rig, np.ascontiguousarray(flipped), 132 + 33 * k, wait_for="check") for k in range(4)]
    assert all(f.status != "tracking" for f in frames)
    said = {"mirrored": "left for right", "upside down": "upside down", "turned": "changed at once"}[change]
    assert said in frames[0].status_reason and all(f.status_reason for f in frames)
    # And right again: what is searched for in the flipped picture is given up.
    statuses = [shown_at(rig, counts, 400 + 33 * k).status for k in range(4)]
    assert statuses[-1] == "tracking"


def test_a_search_that_no_thread_has_taken_up_yet_is_given_up_too(rig, exposures):
    """Regression: it began after it had been given up, and looked in the old picture to its end."""
    counts, held = exposures[0][0], threading.Event()
    rig.registration.jobs.thread.submit(held.wait)
    rig.show(counts, wait=False)
    rig.show(np.ascontiguousarray(counts[::-1, ::-1]), wait=False)
    held.set()
    assert rig.registration.jobs.search.result() is None
    assert rig.registration._finder._failed_searches == 0


def test_what_was_accepted_is_so_until_the_pose_is_lost_and_again_where_it_is_found_again(rig, case, exposures, rng):
    counts, truth = exposures[0]
    assert not rig.registration.accept()  # there is nothing to accept yet
    for k in range(4):
        frame = shown_at(rig, counts, 33 * k)
    assert not frame.registration.accepted and rig.registration.accept()
    assert shown_at(rig, counts, 140).registration.accepted
    covered = (8000 + 6000 * rng.random((1024, 1024))).astype(np.uint16)
    for k in range(3):
        shown_at(rig, covered, 200 + 33 * k)
    assert not rig.registration.accepted
    for k in range(5):
        frame = shown_at(rig, counts, 400 + 33 * k)
    assert frame.status == "tracking" and frame.registration.accepted
    rig.registration.restart()
    for k in range(4):
        frame = shown_at(rig, counts, 700 + 33 * k)
    assert frame.status == "tracking" and not frame.registration.accepted
    # After a restart of the program: accepted again where it was, and not a vertebra beside.
    for shift_mm, accepted in ((2.0, True), (20.0, False)):
        rig.registration.restart()
        before = np.array(truth)
        before[1, 3] += shift_mm
        rig.registration.restore_acceptance(before)
        for k in range(4):
            frame = shown_at(rig, counts, 1000 + 33 * k)
        assert frame.status == "tracking" and frame.registration.accepted is accepted


def test_a_picture_that_is_mirrored_from_the_first_frame_on_fits_no_pose_and_that_is_said(rig, exposures):
    flipped = np.ascontiguousarray(exposures[0][0][:, ::-1])
    frames = [shown_at(rig, flipped, 33 * k) for k in range(4)]
    assert all(f.status == "searching" for f in frames)
    assert "mirror image" in frames[-1].status_reason
