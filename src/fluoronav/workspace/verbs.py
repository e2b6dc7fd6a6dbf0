"""The verbs of `fluoronav plan` that the page can start, and what becomes of what they write."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import SimpleITK as sitk
from pydantic import Field

from fluoronav.case import read_volume
from fluoronav.case.file import read_case_file
from fluoronav.planning.revisions import Revision, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.workspace.cases import CACHE
from fluoronav.workspace.errors import Unknown, WorkspaceError
from fluoronav.workspace.jobs import Job, Jobs
from fluoronav.workspace.label_maps import described, on_grid, publish, voxel_counts
from fluoronav.workspace.open_case import OpenCase
from fluoronav.workspace.requests import Body
from fluoronav.workspace.scan import Scan

_UPLOAD = re.compile(r"upload-[0-9a-f]{12}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_RESULT, _OUT = "result.json", "out"  # in a job's folder

Kind = Literal["segment", "measure", "screws", "check", "views", "export"]


class JobRequest(Body):
    """What is to be done."""

    kind: Kind
    engine: str = Field(default="atlas", pattern=r"^[a-z][a-z0-9-]{0,31}$")
    upload: str | None = None
    replace: bool = Field(default=False, description="whether a segmentation becomes the newest revision, or a branch")
    levels: list[str] = Field(default=[], max_length=30)
    to: Literal["case", "stl", "3mf", "slicer", "dicom"] = "case"


def start(jobs: Jobs, case: OpenCase, user: str, request: JobRequest) -> Job:
    """Starts what was asked for.

    Raises
    ------
    WorkspaceError
    """
    upload = _uploaded(case, request.upload)
    if request.kind == "segment" and (request.engine == "import") != (upload is not None):
        raise WorkspaceError("the engine `import` takes an uploaded file as `upload`, and the others take none")

    def command(job: Job) -> Sequence[str]:
        return _arguments(job, case, request, upload)

    newest = case.revisions.newest()
    seen = newest.number if newest else 0

    async def finish(job: Job) -> None:
        if request.kind == "segment":
            await _keep_segmentation(job, case, user, request, seen)
        else:
            await _keep_result(job, case)

    return jobs.start(case, user, request.kind, command, finish)


def _uploaded(case: OpenCase, upload: str | None) -> Path | None:
    if upload is None:
        return None
    path = case.folder / CACHE / upload
    if not _UPLOAD.fullmatch(upload) or not path.is_file():
        raise Unknown("there is no such upload: send the file again")
    return path


def _arguments(job: Job, case: OpenCase, request: JobRequest, upload: Path | None) -> list[str]:
    """Arguments of `fluoronav` for a job."""
    out = job.folder / _OUT
    result = ["--json", str(job.folder / _RESULT)]
    if request.kind == "segment":
        file = read_case_file(case.folder / "case.yaml")
        source = ["--labels", str(upload)] if upload else []
        return ["plan", "segment", str(case.folder / file.ct), "--engine", request.engine, *source, "--out", str(out),
                *result]  # fmt: skip
    levels = ["--levels", *request.levels] if request.levels and request.kind == "screws" else []
    if request.kind == "export":
        return ["plan", "export", str(case.folder), "--to", request.to, "--out", str(out)]
    return ["plan", request.kind, str(case.folder), *levels, *result]


async def _keep_segmentation(job: Job, case: OpenCase, user: str, request: JobRequest, seen: int) -> None:
    """Makes a revision of what an engine found; one that would take the place of people's work becomes a branch."""
    async with case.saving:
        newest = await asyncio.to_thread(case.revisions.newest)
        tip = newest.number if newest else 0
        branch = "" if tip == 0 or (request.replace and tip == seen) else f"{request.engine}-{job.job[:4]}"
        revision = await case.workers.run(
            kept_segmentation, case.folder, job.folder, case.scan, request.engine, tip, branch
        )
    await asyncio.to_thread(
        case.trail.add, "segmented", user=user, engine=revision.author, revision=revision.number, branch=branch
    )
    job.result = {"revision": revision.number, "branch": branch, **_questions(job.folder / _RESULT)}
    case.tell({"event": "revision", "number": revision.number, "author": revision.author, "branch": branch})


def kept_segmentation(folder: Path, job: Path, scan: Scan, engine: str, parent: int, branch: str) -> Revision:
    """A revision of what an engine wrote. Takes the memory of the whole volume: for a process of its own."""
    labels = on_grid(read_volume(job / _OUT / "labels.nii.gz").image, scan)
    said = _said(job / _RESULT).get("structures", [])
    counts = voxel_counts(sitk.GetArrayViewFromImage(labels))
    by_name = {str(s.get("name")): s for s in said}
    structures = []
    for s in described(counts, {int(x["label"]): str(x["name"]) for x in said if "label" in x}, scan, engine):
        found = by_name.get(s.name, {})
        confidence = float(found.get("confidence", s.confidence))
        own = str(found.get("engine", engine))
        structures.append(SegmentedStructure(s.name, s.label, own, confidence, s.voxels, s.volume_cm3))
    revision = Revisions(folder).add(
        labels, tuple(structures), author=engine, ct_hash=scan.ct_hash, parent=parent, branch=branch,
        note=f"segmented by {engine}",
    )  # fmt: skip
    publish(folder)
    return revision


async def _keep_result(job: Job, case: OpenCase) -> None:
    """What a verb has said, for the page; a plan that it wrote becomes a revision."""
    job.result = {"result": await asyncio.to_thread(_said, job.folder / _RESULT)}
    out = job.folder / _OUT
    if out.is_dir():
        files = sorted(p for p in out.rglob("*") if p.is_file())
        job.result = {"files": [{"name": str(p.relative_to(out)), "bytes": p.stat().st_size} for p in files]}
    async with case.planning:
        plan = await asyncio.to_thread(case.plans.newest)
    if plan is not None:
        case.tell({"event": "plan", "revision": plan.revision, "state": plan.state, "author": plan.author})


def _said(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _questions(path: Path) -> dict[str, Any]:
    said = _said(path)
    return {k: said[k] for k in ("questions", "warnings") if k in said}
