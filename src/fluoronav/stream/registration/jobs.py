"""The registration's work beside the frame path: on one thread, one search, comparison and placement at most."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

from fluoronav.imaging.registration.search import Hypothesis

Found = Future[Hypothesis | None]


class BackgroundJobs:
    """What is under way, for the frame path, which alone begins and takes it.

    Attributes
    ----------
    thread : ThreadPoolExecutor
        Of one thread: jobs end in the order in which they were begun.
    search, check, placing : Future or None
        From when it was begun until it is taken.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="registration")
        self.search: Found | None = None
        self.check: Found | None = None
        self.placing: Future[None] | None = None
        self._of_another_picture: list[Found] = []

    @property
    def busy(self) -> bool:
        return self.search is not None or self.check is not None or self.placing is not None

    @property
    def under_way(self) -> list[Future]:
        return [job for job in (self.search, self.check, self.placing) if job is not None]

    def picture_changed(self) -> None:
        """What is searched and compared now is of another picture than those that come: it is never taken."""
        self._of_another_picture = [job for job in (self.search, self.check) if job is not None]

    def taken(self, kind: Literal["search", "check"]) -> Hypothesis | None:
        """What a job has found, once; None where it is not done, has found nothing, or is of another picture."""
        job: Found | None = getattr(self, kind)
        if job is None or not job.done():
            return None
        setattr(self, kind, None)
        found = job.result()
        if job in self._of_another_picture:
            self._of_another_picture.remove(job)
            return None
        return found

    def placed(self) -> bool:
        """Whether patches have been placed since this was asked last."""
        if self.placing is None or not self.placing.done():
            return False
        done, self.placing = self.placing, None
        done.result()
        return True

    def forget(self) -> None:
        """Nothing that is under way is taken."""
        self.search = self.check = self.placing = None

    def close(self) -> None:
        """Waits for what is under way, and begins nothing that waits."""
        self.thread.shutdown(wait=True, cancel_futures=True)
