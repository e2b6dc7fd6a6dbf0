"""The marker's place on the patient, from images of a tool that the tracker sees too."""

import numpy as np
import pytest

from fluoronav.geometry import CArmPose, exp_se3, inverse, rotation_distance_deg, transform_points
from fluoronav.stream.tracking.tracker_registration import Correspondence, TrackerRegistration, reference_pose
from fluoronav.stream.tracking.triangulation import ImageObservation

T_CT_REFERENCE = exp_se3([0.8, -0.4, 1.9, 60, 20, -180])


def correspondences(case, camera, rng, count, orbitals=(0.0,), sigma_px=0.8, sigma_deg=0.1, spread_mm=30.0):
    """A tool that is moved and turned about the target before a C-arm at one or several angles."""
    p, out = case.prior, []
    while len(out) < count:
        T_camera_ct = CArmPose(
            p.isocentre_ct, p.source_to_isocentre_mm, orbitals[len(out) % len(orbitals)], 5.0
        ).T_camera_ct()
        tip_ct = case.target_ct + rng.normal(0, spread_mm, 3)
        axis_ct = np.array([0.0, -1.0, 0.2]) + rng.normal(0, 0.5, 3)
        axis_ct /= np.linalg.norm(axis_ct)
        ends = camera.project(transform_points(T_camera_ct, np.stack([tip_ct, tip_ct - 60 * axis_ct])))
        if np.linalg.norm(ends[0] - ends[1]) < 60:
            continue
        direction = (ends[0] - ends[1]) / np.linalg.norm(ends[0] - ends[1])
        turn = np.deg2rad(rng.normal(0, sigma_deg))
        direction = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ direction
        image = ImageObservation(T_camera_ct, ends[0] + rng.normal(0, sigma_px, 2), direction, sigma_px, sigma_deg)
        back = inverse(T_CT_REFERENCE)
        tip = transform_points(back, tip_ct) + rng.normal(0, 0.1, 3)
        out.append(Correspondence(image, tip, back[:3, :3] @ axis_ct))
    return out


@pytest.mark.parametrize("orbitals", [(0.0,), (-20.0, 25.0)])
def test_the_marker_is_found_and_its_error_is_what_is_claimed(case, camera, orbitals):
    squared = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        found = reference_pose(camera, correspondences(case, camera, rng, 24, orbitals))
        at = case.target_ct
        wrong = transform_points(found.T_ct_reference @ inverse(T_CT_REFERENCE), at) - at
        squared.append(float(wrong @ wrong) / found.sigma_mm(at) ** 2)
        assert np.linalg.norm(wrong) < 4 * found.sigma_mm(at) and found.sigma_mm(at) < 1.0
        assert rotation_distance_deg(found.T_ct_reference, T_CT_REFERENCE) < 1.5
    assert 0.1 < np.mean(squared) < 3  # sigma_mm is the worst direction's; three of that size would give 3


def test_one_correspondence_in_ten_that_shows_something_else_does_no_harm(case, camera, rng):
    some = correspondences(case, camera, rng, 30)
    for k in (3, 13, 23):
        s = some[k].image
        some[k] = Correspondence(
            ImageObservation(s.T_camera_ct, s.tip_px + [60, -40], s.direction, s.sigma_px, s.sigma_deg),
            some[k].tip_reference,
            some[k].axis_reference,
        )
    found = reference_pose(camera, some)
    at = case.target_ct
    assert np.linalg.norm(transform_points(found.T_ct_reference @ inverse(T_CT_REFERENCE), at) - at) < 1.5


def test_a_tool_that_is_not_moved_tells_nothing_and_a_correspondence_that_repeats_is_not_kept(case, camera, rng):
    assert reference_pose(camera, correspondences(case, camera, rng, 20, spread_mm=0.0)) is None
    registration = TrackerRegistration(camera)
    (one,) = correspondences(case, camera, rng, 1)
    for _ in range(50):
        registration.add(one)
        registration.idle()
    assert registration.count == 1 and registration.found is None
    registration.close()


def test_correspondences_are_collected_and_solved_in_the_background(case, camera, rng):
    registration = TrackerRegistration(camera)
    for one in correspondences(case, camera, rng, 40):
        registration.add(one)
        registration.idle()
        if registration._solving is not None:
            registration._solving.result()
    registration.idle()
    assert registration.found is not None
    at = case.target_ct
    off = transform_points(registration.found.T_ct_reference @ inverse(T_CT_REFERENCE), at) - at
    assert np.linalg.norm(off) < 1.0
    registration.close()
