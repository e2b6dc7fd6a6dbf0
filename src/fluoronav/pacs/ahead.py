"""Makes the case of a series while it settles; it is kept only if the series is complete as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from fluoronav.pacs.jobs import Job, Made


class Ahead:
    """What was made ahead, by series; belongs to the thread of the intake.

    Parameters
    ----------
    take_in : callable
        Does a job.
    """

    def __init__(self, take_in: Callable[[Job], Made]) -> None:
        self._take_in = take_in
        self._made: dict[str, tuple[Job, Made | None]] = {}

    def make(self, series: str, job: Job) -> None:
        """Does a job, once, whose series is not complete yet."""
        if series in self._made and self._made[series][0] == job:
            return
        self._made[series] = job, None
        try:
            self._made[series] = job, self._take_in(job)
        except Exception:
            # It is done again when the series is complete, and a fault is said then.
            shutil.rmtree(job.into, ignore_errors=True)

    def taken(self, series: str, job: Job) -> Made:
        """What becomes of a job: what was made ahead, if that was of exactly these files; or else it is done now."""
        ahead = self._made.pop(series, None)
        if ahead is not None and ahead[0] == job and ahead[1] is not None:
            return ahead[1]
        return self._take_in(job)

    def forget(self, series: str) -> None:
        """No case is made of the series."""
        ahead = self._made.pop(series, None)
        if ahead is not None:
            shutil.rmtree(ahead[0].into, ignore_errors=True)
