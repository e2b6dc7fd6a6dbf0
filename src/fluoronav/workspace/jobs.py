"""Work in the background: verbs of `fluoronav plan` as processes of their own, whose progress the page is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
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

from fluoronav.durable import made_folder, written
from fluoronav.site.case_trail import CaseTrail
from fluoronav.workspace.cases import CACHE
from fluoronav.workspace.errors import NotInstalled, Refused, Unknown, WorkspaceError
from fluoronav.workspace.open_case import OpenCase

log = logging.getLogger("fluoronav")

State = Literal["waiting", "running", "done", "failed", "cancelled", "broken"]

_AT_A_TIME = 1  # chosen: each uses all cores that it finds
_KEPT = 20  # ended jobs of a case that are still told; chosen
_NICE = 10  # chosen: strokes come first
_TERM_S = 5.0  # from asking a process to end to ending it; chosen
# "measuring T8 (40%)", or a bar "atlas: spine:  45%|####| 00:03": what is being done, and its share.
_SHARE = re.compile(r"(.*?)[:\s(]*(\d{1,3}(?:\.\d+)?) ?%\)?(?:\|.*)?")
_VERB = re.compile(r"^fluoronav \w+: ")  # before an error
_LINE = re.compile(rb"[\r\n]+")
_BROKEN = "the server ended before this was done"
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
    request : dict
        What was asked for, so that a job that was broken off can be started again.
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
    request: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        """The file that says, as long as the job has not ended, that it has begun."""
        return self.folder.with_suffix(".json")

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
        self._is_closing = False

    def recover(self, case: str, folder: Path) -> None:
        """Takes up the jobs of a case that ended with an earlier server, as broken off; removes what they left.

        Parameters
        ----------
        case : str
        folder : Path
            The case's.
        """
        for path in (folder / CACHE).glob("job-*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        for path in sorted((folder / CACHE).glob("job-*.json")):
            try:
                known = json.loads(path.read_bytes())
                job = Job(
                    path.stem.removeprefix("job-"), case, known["kind"], known["user"], path.with_suffix(""),
                    known["started"], "broken", error=_BROKEN, request=known["request"],
                )  # fmt: skip
                if not known["noted"]:
                    self._note_end(CaseTrail(folder), job)
                    written(path, _recorded(job, noted=True))
            except (OSError, ValueError, LookupError, TypeError) as error:
                log.warning("%s: is no record of a job (%s)", path, error)
                continue
            self._jobs[job.job] = job

    def forget(self, case: OpenCase, job: Job) -> None:
        """Forgets a job that was broken off: it was started again, or nobody wants it any more.

        Raises
        ------
        Refused
        """
        if job.state != "broken":
            raise Refused(f"the job is {job.state}, not broken off")
        job.record.unlink(missing_ok=True)
        del self._jobs[job.job]
        self._tell(case)

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

    def start(self, case: OpenCase, user: str, kind: str, work: Work, request: dict[str, Any] | None = None) -> Job:
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
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        job = Job(number, case.name, kind, user, folder, started, request=request or {})
        written(job.record, _recorded(job, noted=False))
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
        """Ends all jobs; the next server says that they were broken off."""
        self._is_closing = True
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
        is_broken = self._is_closing and state == "cancelled"
        job.state, job.error = ("broken", _BROKEN) if is_broken else (state, error)
        if state != "done":
            shutil.rmtree(job.folder, ignore_errors=True)
        self._note_end(case.trail, job)
        with contextlib.suppress(OSError):
            if is_broken:
                written(job.record, _recorded(job, noted=True))
            else:
                job.record.unlink(missing_ok=True)
        self._tell(case)

    def _note_end(self, trail: CaseTrail, job: Job) -> None:
        with contextlib.suppress(ValueError, OSError):  # what it made is there, whether or not the disk takes the line
            trail.add("job.end", user=job.user, kind=job.kind, job=job.job, state=job.state, error=job.error)

    async def _process(self, case: OpenCase, job: Job, work: Work) -> None:
        arguments = work.command(job)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fluoronav", *arguments, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, start_new_session=True,
            env=os.environ | {"LOGNAME": job.user},  # what it writes is this user's work
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
        job.text = _VERB.sub("", text.replace(f"{case.folder.parent}/", ""))
        self._tell(case)

    def _tell(self, case: OpenCase) -> None:
        case.tell({"event": "jobs", "jobs": self.of(case.name)})

    def _forget(self, case: str) -> None:
        """Forgets the oldest jobs of a case that have ended, with their files."""
        ended = [j for j in self._jobs.values() if j.case == case and j.state not in ("waiting", "running")]
        for job in ended[: max(len(ended) - _KEPT, 0)]:
            shutil.rmtree(job.folder, ignore_errors=True)
            job.record.unlink(missing_ok=True)
            del self._jobs[job.job]
            self._tasks.pop(job.job, None)


def _recorded(job: Job, *, noted: bool) -> bytes:
    """The record of a job; `noted`: the trail says that it was broken off."""
    known = {"kind": job.kind, "user": job.user, "started": job.started, "request": job.request, "noted": noted}
    return json.dumps(known).encode()


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
