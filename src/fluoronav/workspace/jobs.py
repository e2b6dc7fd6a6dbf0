"""Work in the background: verbs of `fluoronav plan` as processes of their own, whose progress the page is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from fluoronav.durable import made_folder
from fluoronav.workspace.cases import CACHE
from fluoronav.workspace.errors import NotInstalled, Refused, Unknown, WorkspaceError
from fluoronav.workspace.open_case import OpenCase

State = Literal["waiting", "running", "done", "failed", "cancelled"]

_AT_A_TIME = 1  # chosen: each uses all cores that it finds
_KEPT = 20  # ended jobs of a case that are still told; chosen
_NICE = 10  # chosen: strokes come first
_TERM_S = 5.0  # from asking a process to end to ending it; chosen
# "measuring T8 (40%)", or a bar "atlas: spine:  45%|####| 00:03": what is being done, and its share.
_SHARE = re.compile(r"(.*?)[:\s(]*(\d{1,3}(?:\.\d+)?) ?%\)?(?:\|.*)?")
_LINE = re.compile(rb"[\r\n]+")
_NO_SUCH_VERB = 2  # status with which argparse refuses
_MOST_TEXT = 400  # of a line that is shown; chosen


@dataclass
class Job:
    """One piece of work.

    Attributes
    ----------
    job : str
        Unique in the server.
    share : float or None
        Done, 0 to 1, where the process says so.
    text : str
        What it last said.
    folder : Path
        Where it writes.
    result : dict
        What its end adds for the page, such as ``revision``.
    """

    job: str
    case: str
    kind: str
    user: str
    folder: Path
    started: str
    state: State = "waiting"
    share: float | None = None
    text: str = ""
    error: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def head(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "job": self.job, "kind": self.kind, "state": self.state, "share": self.share, "text": self.text,
            "user": self.user, "started": self.started, "error": self.error, **self.result,
        }  # fmt: skip


def _never(job: Job, status: int) -> bool:
    return False


@dataclass(frozen=True)
class Work:
    """What a job does.

    Attributes
    ----------
    command : callable
        Takes the job, whose folder is made; returns arguments of `fluoronav`.
    finish : callable
        Takes what the process has written; a WorkspaceError of it fails the job.
    is_result : callable
        Whether the work is done although the process ended with this status, which is not 0.
    """

    command: Callable[[Job], Sequence[str]]
    finish: Callable[[Job], Awaitable[None]]
    is_result: Callable[[Job, int], bool] = _never


class Jobs:
    """The jobs of all cases; a reload of the page does not touch them."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_AT_A_TIME)

    def of(self, case: str) -> list[dict[str, Any]]:
        """The jobs of a case, the oldest first."""
        return [j.head() for j in self._jobs.values() if j.case == case]

    def running(self, case: str) -> bool:
        """Whether work on a case is going on."""
        return any(j.case == case and j.state in ("waiting", "running") for j in self._jobs.values())

    def get(self, case: str, job: str) -> Job:
        """A job of a case.

        Raises
        ------
        Unknown
        """
        found = self._jobs.get(job)
        if found is None or found.case != case:
            raise Unknown(f"case {case} has no job {job[:20]!r}")
        return found

    def start(self, case: OpenCase, user: str, kind: str, work: Work) -> Job:
        """Starts work on a case.

        Raises
        ------
        Refused
            The same is being done already.
        """
        if any(
            j.case == case.name and j.kind == kind and j.state in ("waiting", "running") for j in self._jobs.values()
        ):
            raise Refused(f"{kind} is being done for this case already")
        number = secrets.token_hex(6)
        folder = made_folder(case.folder / CACHE / f"job-{number}")
        job = Job(number, case.name, kind, user, folder, datetime.now().astimezone().isoformat(timespec="seconds"))
        self._forget(case.name)
        self._jobs[number] = job
        case.trail.add("job", user=user, kind=kind, job=number)
        self._tasks[number] = asyncio.create_task(self._run(case, job, work))
        self._tell(case)
        return job

    async def cancel(self, case: OpenCase, job: Job) -> None:
        """Ends a job that waits or runs."""
        task = self._tasks.get(job.job)
        if task is None or task.done():
            raise Refused(f"the job is {job.state} already")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if job.state in ("waiting", "running"):  # it was cancelled before it had begun
            self._ends(case, job, "cancelled")

    async def close(self) -> None:
        """Ends all jobs."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, case: OpenCase, job: Job, work: Work) -> None:
        try:
            async with self._room:
                job.state = "running"
                self._tell(case)
                await self._process(case, job, work)
                await work.finish(job)
            job.share = 1.0
            self._ends(case, job, "done")
        except asyncio.CancelledError:
            self._ends(case, job, "cancelled")
        except (WorkspaceError, ValueError, OSError, RuntimeError) as error:
            self._ends(case, job, "failed", str(error).replace(f"{case.folder.parent}/", "")[:2000])

    def _ends(self, case: OpenCase, job: Job, state: State, error: str = "") -> None:
        job.state, job.error = state, error
        if state != "done":
            shutil.rmtree(job.folder, ignore_errors=True)
        with contextlib.suppress(ValueError, OSError):  # what it made is there, whether or not the disk takes the line
            case.trail.add("job.end", user=job.user, kind=job.kind, job=job.job, state=state, error=error)
        self._tell(case)

    async def _process(self, case: OpenCase, job: Job, work: Work) -> None:
        arguments = work.command(job)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fluoronav", *arguments, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        try:
            assert process.stderr is not None
            rest = b""
            while data := await process.stderr.read(4096):
                *lines, rest = _LINE.split(rest + data)
                for line in lines:
                    self._said(case, job, line)
            if rest:
                self._said(case, job, rest)
            if await process.wait() == _NO_SUCH_VERB:
                raise NotInstalled(f"this installation has no `fluoronav {' '.join(arguments[:2])}` ({job.text})")
            if process.returncode and not work.is_result(job, process.returncode):
                raise WorkspaceError(job.text or f"the process ended with status {process.returncode}")
        finally:
            await _ended(process)

    def _said(self, case: OpenCase, job: Job, line: bytes) -> None:
        text = line.decode(errors="replace").strip()[:_MOST_TEXT]
        if not text:
            return
        if found := _SHARE.fullmatch(text):
            text, job.share = found[1], min(float(found[2]) / 100, 1.0)
        job.text = text.replace(f"{case.folder.parent}/", "").removeprefix("fluoronav plan: ")
        self._tell(case)

    def _tell(self, case: OpenCase) -> None:
        case.tell({"event": "jobs", "jobs": self.of(case.name)})

    def _forget(self, case: str) -> None:
        """Forgets the oldest jobs of a case that have ended, with their files."""
        ended = [j for j in self._jobs.values() if j.case == case and j.state not in ("waiting", "running")]
        for job in ended[: max(len(ended) - _KEPT, 0)]:
            shutil.rmtree(job.folder, ignore_errors=True)
            del self._jobs[job.job]
            self._tasks.pop(job.job, None)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Ends a process and what it has started."""
    if process.returncode is not None:
        return
    for number, wait_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), wait_s)
            return
