"""The button Mark, with somebody who hears marks: a real socket, and a real page."""

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import zmq

from fluoronav.pacs.marks import Marks


class Hears:
    """What `pacs live` is to a display."""

    def __init__(self, endpoint):
        self.context, self.ended, self.asked, self.objects, self.why = zmq.Context(), threading.Event(), [], 4, ""
        self.marks = Marks(self.context, endpoint)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        while not self.ended.wait(0.01):
            self.marks.serve(self._take)
        self.marks.close()
        self.context.term()

    def _take(self, asked):
        self.asked.append(asked)
        if self.why:
            raise ValueError(self.why)
        done = Future()
        if self.objects:
            done.set_result(self.objects)
        return SimpleNamespace(header=SimpleNamespace(seq=asked.seq, t_acq=0)), done

    def close(self):
        self.ended.set()
        self.thread.join()


@pytest.fixture
def hears(tmp_path):
    pytest.importorskip("pynetdicom", reason="the extra `pacs` is not installed")
    hears = Hears(f"ipc://{tmp_path}/marks")
    yield hears
    hears.close()


def says(display, page, element, words):
    display.until(page, f"document.getElementById('{element}').textContent.includes({words!r})")


def test_a_press_says_what_becomes_of_the_moment_and_is_of_the_frame_that_was_shown(browser, display, hears):
    page = display.open(browser)
    page.click("#tool-mark")
    says(display, page, "age", "Marked: sent to the PACS side")
    assert hears.asked[0].seq > 0 and hears.asked[0].note == ""
    # A note may follow: of the same frame, while pictures go on.
    page.fill("#mark-note", "wire in place")
    page.press("#mark-note", "Enter")
    display.until(page, "document.getElementById('mark-note').offsetParent === null")
    assert (hears.asked[1].seq, hears.asked[1].note) == (hears.asked[0].seq, "wire in place")


def test_what_is_still_being_made_and_what_is_not_kept_are_said(browser, display, hears):
    page = display.open(browser)
    hears.objects = 0
    page.click("#tool-mark")
    says(display, page, "age", "the PACS side is making its objects")
    hears.why = "the case is not of the store"
    page.click("#tool-mark")
    says(display, page, "refusal", "in the audit trail alone: the case is not of the store")
