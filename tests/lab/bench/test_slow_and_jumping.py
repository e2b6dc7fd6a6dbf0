"""Rows of `bench faults` for jumps and slowness: what they do to a process, and how held poses are judged."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from fluoronav.case import load_case
from fluoronav.geometry import inverse
from fluoronav.lab.bench.faults.held import check_stays_right, held_poses, unexplained_s
from fluoronav.lab.bench.faults.judge import Verdict
from fluoronav.lab.bench.faults.jumps import LIMITS as JUMPS
from fluoronav.lab.bench.faults.jumps import still_arm
from fluoronav.lab.bench.faults.loop import Heard
from fluoronav.lab.bench.faults.named_threads import background_threads, is_background, threads_of
from fluoronav.lab.bench.faults.row import NotHere
from fluoronav.lab.bench.faults.slowness import background_late, core_taken, half_speed
from fluoronav.lab.simulation.scenario import Scenario

T0 = 1_700_000_000.0
PERIOD_S = 1 / 30
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="cores and names of threads")


def overlays(*poses, status="degraded"):
    """(age in frames, age_ms, bound) of each overlay; None has no pose."""
    out = []
    for k, pose in enumerate(poses):
        t = T0 + k * PERIOD_S
        r = None if pose is None else dict(zip(("age", "age_ms", "tre_image_mm"), pose, strict=True))
        o = {"t_acq": round(t * 1e9), "status": status, "missed": False, "registration": r}
        out.append(Heard(t, "overlay", o, Verdict(False, False)))
    return out


# Held poses


def test_a_held_pose_that_ages_and_whose_bound_grows_is_as_the_rule_has_it():
    held = held_poses(overlays((0, 0.0, 0.3), (1, 33.0, 0.5), (2, 67.0, 0.8), (0, 0.0, 0.3)))
    assert not held.problems
    assert held.longest_ms == 67.0
    assert held.words() == "overlays: degraded 4; 0 late; oldest pose 67 ms"


def test_a_held_pose_that_says_less_than_its_age_is_a_problem():
    held = held_poses(overlays((0, 0.0, 0.3), (1, 33.0, 0.5), (2, 33.0, 0.8), (3, 34.0, 0.9)))
    assert held.problems == ["a pose of 100 ms ago says 34 ms"]


def test_a_held_pose_whose_bound_shrinks_is_a_problem():
    held = held_poses(overlays((0, 0.0, 0.8), (1, 33.0, 0.5)))
    assert held.problems == ["the bound of a held pose shrinks from 0.80 to 0.50 mm"]


def test_the_age_of_a_pose_that_a_search_found_is_not_counted_from_the_pose_before():
    assert not held_poses(overlays((0, 0.0, 0.3), *[None] * 20, (4, 133.0, 0.5), (5, 166.0, 0.6))).problems
    assert not held_poses(overlays((0, 0.0, 0.3), (9, 300.0, 2.0), (4, 133.0, 0.5), (5, 166.0, 0.6))).problems


def said(t, state="degraded", reason="why"):
    return Heard(t, "health", {"state": state, "reason": reason}, Verdict(False, False))


def test_time_without_tracking_is_explained_by_the_first_reason_in_it():
    without = overlays(*[None] * 91)
    assert unexplained_s(without, []) == pytest.approx(3.0)
    assert unexplained_s(without, [said(T0 + 1.0)]) == pytest.approx(1.0)
    assert unexplained_s(without, [said(T0 - 1.0), said(T0 + 2.0, "running")]) == pytest.approx(3.0)
    assert unexplained_s(overlays(*[None] * 91, status="tracking"), []) == 0.0


class Watched:
    """A window in which overlays come."""

    def __init__(self, *right):
        self.problems, self.right = [], right
        self.loop = SimpleNamespace(since=lambda begin, kind: [Heard(T0, kind, {}, Verdict(r, r)) for r in right])

    def last(self, seconds):
        pass

    def check(self, holds, otherwise):
        if not holds:
            self.problems.append(otherwise)


def test_after_the_recovery_the_overlays_that_come_are_right_however_few():
    for right, problems in (
        ([True] * 4, []),
        ([True] * 4 + [False], []),
        ([True] * 3 + [False], ["only 75% of the 4 overlays after it are right"]),
        ([], ["only 0% of the 0 overlays after it are right"]),
    ):
        window = Watched(*right)
        check_stays_right(window, 2.0)
        assert window.problems == problems


# Jumps


@pytest.fixture(scope="module")
def scenario():
    case = load_case("embedded")
    return case, Scenario(), Scenario().poses(case), Scenario().joints(case)


def test_the_patient_jumps_by_5_mm_and_3_degrees(scenario):
    case, s, poses, _ = scenario
    before, after = (poses[s.anatomy_index(k)] for k in (JUMPS.patient.before, JUMPS.patient.after))
    turned = (after @ inverse(before))[:3, :3]
    target = np.append(case.target_ct, 1)
    assert np.linalg.norm((after @ target - before @ target)[:3]) == pytest.approx(5, abs=0.2)
    assert np.degrees(np.arccos((np.trace(turned) - 1) / 2)) == pytest.approx(3, abs=0.3)


def test_the_arm_jumps_by_3_degrees_and_the_breath_stays(scenario):
    _, s, _, joints = scenario
    before, after = (joints[s.anatomy_index(k)] for k in (JUMPS.arm.before, JUMPS.arm.after))
    assert after.orbital_deg - before.orbital_deg == pytest.approx(3, abs=0.1)
    # The angular joint follows the breath's phase.
    assert after.angular_deg == pytest.approx(before.angular_deg)


def test_joints_say_nothing_of_a_patient_who_jumps(scenario):
    _, s, _, joints = scenario
    by_frame = [joints[s.anatomy_index(k)] for k in range(s.frames)]
    away = [False]
    scene = SimpleNamespace(sequence=SimpleNamespace(joints=by_frame))
    change = still_arm(scene, JUMPS.patient, lambda: away[0])

    def angles(k):
        j = by_frame[k]
        header = {"angles": {"orbital": j.orbital_deg, "angular": j.angular_deg, "swivel": j.swivel_deg}}
        return change(header, None)[0][0]["angles"]

    before = angles(JUMPS.patient.before)
    away[0] = True
    assert angles(JUMPS.patient.after) == pytest.approx(before)


# Slowness


@pytest.fixture
def busy_process():
    code = (
        "import threading\n"
        "def burn():\n    while True: pass\n"
        "threading.Thread(target=burn, daemon=True).start()\nburn()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    yield process
    process.kill()
    process.wait()


def state(pid):
    return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]


@linux
def test_a_process_at_half_speed_is_stopped_now_and_then_and_goes_on_after_it(busy_process):
    with half_speed(busy_process.pid):
        seen = set()
        end = time.monotonic() + 10
        while not {"T", "R"} <= seen and time.monotonic() < end:
            seen.add(state(busy_process.pid))
    assert {"T", "R"} <= seen
    assert state(busy_process.pid) != "T"


@linux
def test_every_thread_loses_a_core_and_gets_it_back(busy_process):
    pid = busy_process.pid
    cores = os.sched_getaffinity(pid)
    if len(cores) < 2:
        pytest.skip("one core only")

    def of_threads():
        return [os.sched_getaffinity(t) for t in threads_of(pid)]

    with core_taken(pid):
        assert all(left == {min(cores)} for left in of_threads())
    assert all(left == cores for left in of_threads())


@linux
def test_one_core_alone_cannot_be_taken(busy_process):
    os.sched_setaffinity(busy_process.pid, {min(os.sched_getaffinity(0))})
    with pytest.raises(NotHere), core_taken(busy_process.pid):
        pass


NAMED = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from fluoronav.lab.bench.faults.named_threads import name_new_threads
name_new_threads()
threading.Thread(target=time.sleep, args=(60,), name="frames", daemon=True).start()
pools = [ThreadPoolExecutor(1, thread_name_prefix=n) for n in ("beside", "search", "tracker-registration")]
for pool in pools: pool.submit(time.sleep, 60)
print("begun", flush=True)
time.sleep(60)
"""


@linux
def test_background_workers_are_known_by_name_and_share_a_core_of_their_own():
    process = subprocess.Popen([sys.executable, "-c", NAMED], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begun\n"
        cores = os.sched_getaffinity(process.pid)
        end = time.monotonic() + 10
        while len(background_threads(process.pid)) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        background = background_threads(process.pid)
        assert sorted(background.values()) == ["search_0", "tracker-regis_0"]
        if len(cores) < 2:
            pytest.skip("one core only")
        with background_late(process.pid):
            for thread in threads_of(process.pid):
                expected = {max(cores)} if thread in background else cores - {max(cores)}
                assert os.sched_getaffinity(thread) == expected
        assert all(os.sched_getaffinity(thread) == cores for thread in threads_of(process.pid))
    finally:
        process.kill()
        process.wait()


def test_the_frame_path_is_not_in_the_background():
    assert [n for n in ("frames", "watch", "MainThread", "beside_0", "prepare_3") if is_background(n)] == []
    assert all(is_background(n) for n in ("registration_0", "keyframes_0", "outlines_0", "view_0", "tracker-regis_0"))
