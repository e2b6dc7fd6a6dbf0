"""The verbs of `fluoronav plan`, and the briefing, that the page can start, and what becomes of what they write."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fluoronav.case.file import read_case_file
from fluoronav.planning.questions import write_questions
from fluoronav.workspace.cases import CACHE
from fluoronav.workspace.errors import Unknown, WorkspaceError
from fluoronav.workspace.jobs import Job, Jobs, Work
from fluoronav.workspace.open_case import OpenCase
from fluoronav.workspace.requests import Body
from fluoronav.workspace.segmented import kept_segmentation

_UPLOAD = re.compile(r"upload-[0-9a-f]{12}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_OF_THIS_COMPUTER = ("case", "plan", "file", "out")  # keys of what verbs say that name files
_RESULT, _OUT = "result.json", "out"  # in a job's folder
_BRIEFING = "briefing.pdf"
_LEVEL = r"^[A-Z]\d{1,2}$"
_NUMBER = r"-?\d{1,5}(\.\d{1,3})?"

Kind = Literal["segment", "measure", "screws", "check", "views", "simulate", "export", "briefing"]


class JobRequest(Body):
    """What is to be done."""

    kind: Kind
    engine: str = Field(default="atlas", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    upload: str | None = None
    replace: bool = Field(default=False, description="whether a segmentation becomes the newest revision, or a branch")
    at: str | None = Field(default=None, pattern=rf"^([A-Z]\d{{1,2}}=)?{_NUMBER},{_NUMBER},{_NUMBER}$")
    level_of: str | None = Field(default=None, pattern=r"^[A-Z]\d{1,2}=[A-Z]\d{1,2}$")
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$")
    scheme: Literal["totalsegmentator", "totalsegmentator1", "totalsegmentator2", "verse"] | None = None
    coordinates: Literal["lps", "ras"] | None = None
    levels: list[str] = Field(default=[], max_length=30)
    to: Literal["case", "stl", "3mf", "slicer", "dicom", "igtl"] = "case"
    frame: Literal["lps", "ras"] | None = None
    guide: str | None = Field(default=None, pattern=_LEVEL)


def start(jobs: Jobs, case: OpenCase, user: str, request: JobRequest, instruments: Path | None = None) -> Job:
    """Starts what was asked for; an exported case names the room's instruments.

    Raises
    ------
    WorkspaceError
    """
    upload = _uploaded(case, request.upload)
    if request.kind == "segment" and (request.engine == "import") != (upload is not None):
        raise WorkspaceError("the engine `import` takes an uploaded file as `upload`, and the others take none")
    if any(not re.match(_LEVEL, level) for level in request.levels):
        raise WorkspaceError("levels must be such as T8 or L1")
    newest = case.revisions.newest()
    seen = newest.number if newest else 0

    def command(job: Job) -> Sequence[str]:
        return _arguments(job, case, request, upload, instruments)

    async def finish(job: Job) -> None:
        if request.kind == "segment":
            await _keep_segmentation(job, case, user, request, seen)
        else:
            await _keep_result(job, case)

    def is_result(job: Job, status: int) -> bool:
        # `plan check` ends with status 1 where it has found something: that is its result.
        return request.kind == "check" and status == 1 and (job.folder / _RESULT).exists()

    return jobs.start(case, user, request.kind, Work(command, finish, is_result), request.model_dump(mode="json"))


def _uploaded(case: OpenCase, upload: str | None) -> Path | None:
    if upload is None:
        return None
    path = case.folder / CACHE / upload
    if not _UPLOAD.fullmatch(upload) or not path.is_file():
        raise Unknown("there is no such upload: send the file again")
    return path


def _arguments(
    job: Job, case: OpenCase, request: JobRequest, upload: Path | None, instruments: Path | None
) -> list[str]:
    """Arguments of `fluoronav` for a job."""
    out = str(job.folder / _OUT)
    result = ["--json", str(job.folder / _RESULT)]
    if request.kind == "segment":
        file = read_case_file(case.folder / "case.yaml")
        options = {
            "--series": file.ct_series, "--from": upload, "--at": request.at, "--level-of": request.level_of,
            "--name": request.name, "--scheme": request.scheme, "--coordinates": request.coordinates,
        }  # fmt: skip
        given = [f"{k}={v}" for k, v in options.items() if v is not None]
        return [
            "plan",
            "segment",
            str(case.folder / file.ct),
            f"--engine={request.engine}",
            *given,
            "--out",
            out,
            *result,
        ]
    if request.kind == "export":
        room = instruments if request.to == "case" else None
        options = {"--to": request.to, "--frame": request.frame, "--guide": request.guide, "--instruments": room}
        given = [f"{k}={v}" for k, v in options.items() if v is not None]
        return ["plan", "export", str(case.folder), *given, "--out", out, *result]
    if request.kind == "briefing":
        return ["report", "briefing", str(case.folder), "--out", str(job.folder / _OUT / _BRIEFING), *result]
    more = {"screws": ["--levels", *request.levels] if request.levels else [], "views": ["--write"]}
    return ["plan", request.kind, str(case.folder), *more.get(request.kind, []), *result]


async def _keep_segmentation(job: Job, case: OpenCase, user: str, request: JobRequest, seen: int) -> None:
    """Makes a revision of what an engine found; one that would take the place of people's work becomes a branch."""
    async with case.saving:
        newest = await asyncio.to_thread(case.revisions.newest)
        tip = newest.number if newest else 0
        branch = "" if tip == 0 or (request.replace and tip == seen) else f"{request.engine}-{job.job[:4]}"
        revision = await case.workers.run(
            kept_segmentation, case.folder, job.folder / _OUT, case.scan, request.engine, tip, branch
        )
    said = _said(job.folder / _RESULT)
    questions = {"revision": revision.number, **{k: said.get(k, []) for k in ("questions", "warnings")}}

    def note() -> None:
        case.trail.add("segmented", user=user, engine=revision.author, revision=revision.number, branch=branch)
        write_questions(case.folder, questions)

    await asyncio.to_thread(note)
    job.result = {**questions, "branch": branch}
    case.tell({"event": "revision", "number": revision.number, "author": revision.author, "branch": branch})


async def _keep_result(job: Job, case: OpenCase) -> None:
    """What a verb has said, for the page; a plan that it wrote becomes a revision."""
    said = await asyncio.to_thread(_said, job.folder / _RESULT)
    job.result = {"result": said, "warnings": said.get("warnings", [])}
    out = job.folder / _OUT
    if out.is_dir():
        files = sorted(p for p in out.rglob("*") if p.is_file())
        job.result["files"] = [{"name": str(p.relative_to(out)), "bytes": p.stat().st_size} for p in files]
    async with case.planning:
        plan = await asyncio.to_thread(case.plans.newest)
    if plan is not None:
        case.tell({"event": "plan", "revision": plan.revision, "state": plan.state, "author": plan.author})


def _said(path: Path) -> dict[str, Any]:
    """What a verb has written as JSON, without the place of files on this computer."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {k: v for k, v in content.items() if k not in _OF_THIS_COMPUTER}
