"""What works beside the frame path takes what it leaves."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fluoronav.stream.guidance import GuidanceStage
from fluoronav.stream.priority import beside_the_frame_path
from fluoronav.stream.registration.stage import RegistrationStage
from fluoronav.stream.view.stage import ViewStage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux only")


def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_thread_beside_the_frame_path_has_a_lower_priority_and_no_other_has():
    before = niceness()
    with ThreadPoolExecutor(1, initializer=beside_the_frame_path) as pool:
        lower = pool.submit(niceness).result()
        with ThreadPoolExecutor(1, initializer=beside_the_frame_path) as nested:
            assert pool.submit(lambda: nested.submit(niceness).result()).result() == lower
    assert lower == max(before, 10) and niceness() == before


def test_pictures_and_outlines_are_made_at_a_lower_priority_and_the_patient_is_searched_for_at_none_lower():
    registration, view, guidance = RegistrationStage(), ViewStage(), GuidanceStage()
    assert view._worker.submit(niceness).result() > niceness()
    assert guidance._background.submit(niceness).result() > niceness()
    assert registration.jobs.thread.submit(niceness).result() == niceness()
    for stage in (registration, view, guidance):
        stage.close()
