"""What was found before something changed never speaks for what comes after it."""

import threading
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tests.stream.registration.rig import Arm, shown_at

from fluoronav.imaging.registration.gauss_newton import PoseEstimate
from fluoronav.imaging.registration.search import Hypothesis
from fluoronav.stream import reasons
from fluoronav.stream.registration.finder import Finder, Snapshot
from fluoronav.stream.registration.judging import AgeLimits, FieldComparison
from fluoronav.stream.registration.states import Event


@pytest.fixture
def tracking(rig, exposures):
    """The stages after four frames, the next is due at 132 ms; and the counts."""
    counts = exposures[0][0]
    for k in range(4):
        frame = shown_at(rig, counts, 33 * k)
    assert frame.status == "tracking"
    return rig.registration, counts


def flipped(counts):
    return np.ascontiguousarray(counts[::-1])


def pose(T, agreement=0.9, patches=20, **more):
    return Hypothesis(PoseEstimate(T, 0.9, np.eye(6), np.zeros(3), 0, patches), agreement, **more)


def done(found):
    job = Future()
    job.set_result(found)
    return job


def held(method):
    """A method whose result comes when `released` is set; `entered` is set when it is there."""
    entered, released = threading.Event(), threading.Event()

    def late(*args):
        result = method(*args)
        entered.set()
        released.wait(60)
        return result

    return late, entered, released


def test_a_comparison_of_the_picture_before_a_flip_does_not_confirm_the_one_after_it(rig, tracking, monkeypatch):
    registration, counts = tracking
    late, entered, released = held(registration._finder.compare)
    monkeypatch.setattr(registration._finder, "compare", late)
    registration._comparison.is_due()
    rig.show(counts, wait=False)
    entered.wait(60)
    rig.show(flipped(counts), wait=False)
    released.set()
    registration.wait_for_background()
    frame = rig.show(flipped(counts), wait=False)
    assert registration._comparison.agreement == 0 and frame.status != "tracking"


def test_a_pose_of_the_picture_before_a_flip_is_not_followed_after_it(rig, exposures, monkeypatch):
    counts, registration = exposures[0][0], rig.registration
    late, entered, released = held(registration._finder.find)
    monkeypatch.setattr(registration._finder, "find", late)
    rig.show(counts, wait=False)
    entered.wait(60)
    rig.show(flipped(counts), wait=False)
    released.set()
    assert registration.jobs.search.result() is not None
    frame = rig.show(flipped(counts), wait=False)
    assert frame.registration is None and registration._T_camera_ct is None
    # What is begun from now on goes on to its end.
    assert [rig.show(counts).status for _ in range(3)][-1] == "tracking"


def test_a_flip_while_the_hand_is_told_ends_the_search(rig, exposures, monkeypatch):
    finder = rig.registration._finder
    agreement = finder._mirror_image.agreement

    def turned_over(*args):
        finder.begin_anew()
        return agreement(*args)

    monkeypatch.setattr(finder._mirror_image, "agreement", turned_over)
    rig.show(exposures[0][0], wait=False)
    assert rig.registration.jobs.search.result() is None


def test_a_flip_of_which_there_is_no_time_to_measure_the_pose_is_not_called_tracking(rig, tracking):
    _, counts = tracking
    frame = shown_at(rig, flipped(counts), 132, milliseconds=0.5)
    assert frame.registration.age == 1 and frame.status == "degraded"
    assert frame.status_reason == reasons.TURNED_UPSIDE_DOWN


@pytest.mark.parametrize(
    ("found", "reason"), [({"turn_deg": 5.0}, reasons.UNSURE), ({"agreement": 0.5}, reasons.DISAGREES)]
)
def test_a_pose_that_is_held_is_doubted_as_one_that_is_measured(rig, tracking, found, reason):
    registration, counts = tracking
    registration.jobs.forget()
    for name, value in found.items():
        setattr(registration._comparison, name, value)
    frame = shown_at(rig, counts, 132, milliseconds=0.5)
    assert (frame.registration.age, frame.status, frame.status_reason) == (1, "degraded", reason)


def test_a_pose_that_is_held_while_the_c_arm_turns_is_not_called_tracking(rig, case, camera):
    arm = Arm(case, camera)
    for _ in range(4):
        counts, joints, _ = arm.shot(0.0)
        frame = rig.show(counts, joints=joints)
    assert frame.status == "tracking"
    frame = rig.show(counts, joints=joints, milliseconds=0.5)
    assert (frame.status, frame.registration.age) == ("tracking", 1)
    counts, joints, _ = arm.shot(2.0)
    frame = rig.show(counts, joints=joints, milliseconds=0.5)
    assert (frame.status, frame.registration.age) == ("degraded", 2)
    assert frame.status_reason == reasons.NO_TIME


def test_a_pose_that_was_refuted_is_not_handed_on(rig, tracking):
    registration, counts = tracking
    T = registration._T_camera_ct.copy()
    T[0, 3] += 1
    frame = shown_at(rig, counts, 132)
    registration._finder._place(T, frame.anatomy_mask, None)
    registration._objects._found = {"rib": object()}
    registration.jobs.check = done(pose(T))
    frame = shown_at(rig, counts, 165, milliseconds=0.5, unchanged_ms=33.0)
    assert (frame.registration.age, frame.registration.age_ms, frame.status) == (0, 33.0, "tracking")
    # Nor is what was measured against it.
    assert registration._objects._found == {}


@pytest.mark.parametrize("layered", [None, "as the bones lie"])
def test_views_of_all_tissue_are_not_fused_with_those_of_the_target_bone(rig, tracking, monkeypatch, layered):
    registration, _ = tracking
    T = registration._T_camera_ct
    registration._lose(Event.GIVEN_UP)
    registration._views.remember(np.eye(4), T, np.eye(6))
    monkeypatch.setattr(registration, "_follow", lambda found: None)
    registration.jobs.search = done(pose(T, layered=layered))
    registration._take_search_result()
    assert len(registration._views) == (1 if layered is None else 0)


def test_a_pose_that_is_found_in_a_picture_that_stands_still_is_as_old_as_the_picture(rig, tracking):
    """Regression: `tracking` with age 0, a second after the last exposure."""
    registration, counts = tracking
    T = registration._T_camera_ct
    frame = shown_at(rig, counts, 132)
    registration._finder._place(T, frame.anatomy_mask, None)
    for k in range(1, 31):
        frame = shown_at(rig, counts, 132 + 33 * k, unchanged_ms=33.0 * k)
    registration.jobs.check = done(pose(T))
    frame = shown_at(rig, counts, 132 + 33 * 31, unchanged_ms=33.0 * 31)
    assert (frame.status, frame.status_reason) == ("degraded", reasons.UNCHANGED)
    assert frame.registration.age_ms == 33.0 * 31 and not registration.accept()
    frame = shown_at(rig, counts, 132 + 33 * 32, unchanged_ms=33.0 * 32)
    assert frame.registration.age_ms == pytest.approx(33.0 * 32)


def test_a_pose_of_the_wrong_hand_after_a_change_is_lost_and_searched_for(rig, tracking):
    registration, counts = tracking
    frame = shown_at(rig, counts, 132)
    registration._comparison.invalidate(reasons.TURNED_LEFT_RIGHT)
    registration.jobs.check = done(pose(registration._T_camera_ct, agreement=0.0, patches=0))
    frame = shown_at(rig, counts, 165, wait_for="check")
    assert frame.status == "lost" and registration.jobs.search is not None


def test_a_picture_that_stands_still_is_searched_after_the_search_of_the_one_before_was_dropped(
    rig, exposures, monkeypatch
):
    counts, registration = exposures[0][0], rig.registration
    late, entered, released = held(registration._finder.find)
    monkeypatch.setattr(registration._finder, "find", late)
    shown_at(rig, flipped(counts), 0, wait_for="check")
    entered.wait(60)
    shown_at(rig, counts, 33, wait_for="check")
    released.set()
    registration.wait_for_background()
    statuses = [shown_at(rig, counts, 66 + 33 * k, unchanged_ms=33.0 * (k + 1)).registration for k in range(2)]
    assert statuses[0] is None and statuses[1] is not None


# The comparison


def test_a_new_pose_is_not_held_to_be_what_was_found_wrong_with_the_one_before():
    comparison = FieldComparison()
    comparison.found(pose(np.eye(4), unexplained=np.diag([0.01] * 3 + [4.0] * 3)), None)
    assert comparison.against(0, AgeLimits()) == reasons.UNSURE
    comparison.found(pose(np.eye(4)), None)
    assert comparison.turn_deg == 0 and comparison.against(0, AgeLimits()) == ""


def test_a_pose_that_was_never_compared_is_not_said_to_disagree():
    assert FieldComparison().against(0, AgeLimits()) == reasons.UNCOMPARED


class Searcher:
    """Agrees with every pose, and knows no better one."""

    def __init__(self, agreement):
        self._agreement = agreement

    def agreement(self, *_):
        return self._agreement

    def second_opinion(self, best, *_):
        return best

    def prepare(self):
        pass


def finder_of(agreement, mirrored, target=None):
    mirror = SimpleNamespace(agreement=lambda *_: mirrored)
    return Finder(Searcher(agreement), mirror, np.zeros(3), lambda *_: None, target)


SNAPSHOT = Snapshot({128: np.zeros((128, 128), np.float32)}, np.ones((128, 128), bool), None)


@pytest.mark.parametrize(("mirrored", "agreement"), [(0.2, 0.9), (0.85, 0.0)])
def test_after_a_change_of_the_picture_its_hand_is_told_anew(mirrored, agreement):
    finder = finder_of(0.9, mirrored)
    where = pose(np.eye(4), patches=0).estimate, SNAPSHOT
    assert finder.compare(*where).agreement == 0.9
    assert finder.compare(*where, changed=True).agreement == agreement


def test_the_hand_of_a_better_pose_is_told_although_that_of_the_one_before_was_right():
    asked, refined = [], iter([0.9, 0.5, 0.9])
    finder = finder_of(0.9, 0.2)
    finder._searcher.refined = lambda T, *_: pose(T, next(refined))
    finder._searcher.second_opinion = lambda *_: pose(np.diag([-1.0, -1.0, 1.0, 1.0]))

    def mirrored(T, *_):
        asked.append(T[0, 0])
        finder.newest = replace(SNAPSHOT)  # a frame has come meanwhile
        return 0.2 if T[0, 0] > 0 else 0.95

    finder._mirror_image = SimpleNamespace(agreement=mirrored)
    finder.newest = SNAPSHOT
    assert finder._caught_up(pose(np.eye(4)), SNAPSHOT) is None
    assert asked == [1.0, -1.0]


def test_what_contradicts_a_pose_in_layers_is_kept_where_the_field_agrees_with_little():
    doubt = np.diag([0.01] * 3 + [4.0] * 3)
    target = SimpleNamespace(
        agreement=lambda *_: 0.65, of=lambda whole, *_: replace(whole, unexplained=doubt, layered="as they lie")
    )
    found = finder_of(0.65, 0.2, target).compare(pose(np.eye(4)).estimate, SNAPSHOT, layered="as they lie")
    assert found.unexplained is doubt and found.agreement == 0.65
