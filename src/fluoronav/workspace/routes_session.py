"""Routes of a user's working session: strokes, undo, operations, saving."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from aiohttp import web
from pydantic import Field

from fluoronav.workspace import delta
from fluoronav.workspace.delta import Runs
from fluoronav.workspace.errors import WorkspaceError
from fluoronav.workspace.open_case import OpenCase
from fluoronav.workspace.operations import Place, change_of, parsed
from fluoronav.workspace.requests import (
    Body,
    body_of,
    json_of,
    json_response,
    number_in,
    packed_response,
    send_voxels,
)
from fluoronav.workspace.routes import Routes
from fluoronav.workspace.routes_cases import kind_for
from fluoronav.workspace.session import Session, name_in
from fluoronav.workspace.surfaces import cropped, surface_of

_MOST_WHAT = 64  # characters of what a stroke is called; chosen


class Opening(Body):
    """Which revision is edited."""

    revision: int | None = Field(default=None, ge=0)
    restart: bool = False


class At(Body):
    """The state that the page shows."""

    sequence: int = Field(ge=0)


class Saving(Body):
    """How a session is saved."""

    note: str = Field(default="", max_length=400)
    resolve: Literal["mine", "theirs"] | None = None
    branch: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{0,32}$")


class SessionRoutes(Routes):
    """A user's working session."""

    def add(self, app: web.Application) -> None:
        at, of_case = "/api/cases/{case}/session", self.desk.of_case
        app.router.add_post(at, of_case(self.open))
        app.router.add_get(f"{at}/labels", of_case(self.labels))
        app.router.add_post(f"{at}/steps", of_case(self.step))
        app.router.add_post(f"{at}/undo", of_case(self.undo))
        app.router.add_post(f"{at}/redo", of_case(self.redo))
        app.router.add_post(f"{at}/operations", of_case(self.operation))
        app.router.add_post(f"{at}/save", of_case(self.save))
        app.router.add_post(f"{at}/discard", of_case(self.discard))
        app.router.add_get(f"{at}/surfaces/{{label}}", of_case(self.surface))

    async def open(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await body_of(request, Opening)
        # What is unpacked for the first time is so beside the server, not in it.
        newest = await asyncio.to_thread(case.revisions.newest)
        if target := body.revision or (newest.number if newest else 0):
            await case.labels_of(target)
        async with case.locks[user]:
            session = await case.session(user, revision=body.revision, restart=body.restart)
            state = session.state()
        case.tell({"event": "editors", "editors": case.editors()})
        return json_response(state)

    async def labels(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        async with case.locks[user]:  # no stroke changes what is being sent
            session = case.known_session(user)
            kind = kind_for(request, max([0, *(k for k, n in session.counts.items() if n)]))
            headers = {"X-Dtype": kind, "X-Sequence": str(session.sequence)}
            return await send_voxels(request, session.labels, kind, headers)

    async def step(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await request.read()
        sequence = number_in(request.query.get("sequence", ""), "sequence")
        what = request.query.get("what", "brush")
        if not what.isprintable() or len(what) > _MOST_WHAT:
            raise WorkspaceError(f"what must be at most {_MOST_WHAT} printable characters")
        key = hashlib.sha256(f"{sequence} {what} ".encode() + body).hexdigest()[:24]
        async with case.locks[user]:
            session = case.known_session(user)
            if session.last_key == key and session.sequence == sequence + 1:
                return json_response(session.state())  # its answer was lost on the way
            session.check(sequence)
            runs = delta.decoded(body, case.scan.voxels)
            await asyncio.to_thread(_stepped, case, session, user, runs, what, {}, key)
            return json_response(session.state())

    async def undo(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        return await self._moved(request, case, user, "undo", Session.undo)

    async def redo(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        return await self._moved(request, case, user, "redo", Session.redo)

    async def _moved(
        self, request: web.Request, case: OpenCase, user: str, name: str, move: Callable[[Session], tuple[Runs, str]]
    ) -> web.StreamResponse:
        body = await body_of(request, At)
        async with case.locks[user]:
            session = case.known_session(user)
            session.check(body.sequence)

            def work() -> Runs:
                runs, what = move(session)
                case.note_edit(user, session, f"{name} {what}", names_of(session, runs), delta.changed_voxels(runs))
                return runs

            runs = await asyncio.to_thread(work)
            return packed_response(session.state(), runs.tobytes())

    async def operation(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        content = await json_of(request)
        sequence = content.pop("sequence", None)
        if not isinstance(sequence, int):
            raise WorkspaceError("sequence must be a number")
        wanted = parsed(content)
        async with case.locks[user]:
            session = case.known_session(user)
            session.check(sequence)

            def work() -> Runs:
                change = change_of(wanted, Place(session.labels, case.scan.hounsfield(), case.scan))
                _stepped(case, session, user, change.runs, change.what, change.names, "")
                return change.runs

            runs = await asyncio.to_thread(work)
            return packed_response(session.state(), runs.tobytes())

    async def save(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await body_of(request, Saving)
        async with case.locks[user]:
            session = case.known_session(user)
            saved = await case.save(user, session, body.note, body.resolve, body.branch)
            revision = saved.revision
            head = {"revision": revision.number, "merged": bool(revision.merged), "branch": revision.branch}
            return packed_response(head | session.state(), saved.changed.tobytes())

    async def discard(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await body_of(request, At)
        async with case.locks[user]:
            session = case.known_session(user)
            session.check(body.sequence)
            session = await case.session(user, revision=session.base.number, restart=True)
            return json_response(session.state())

    async def surface(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        label = number_in(request.match_info["label"], "label")
        async with case.locks[user]:
            session = case.known_session(user)
            crop = await asyncio.to_thread(cropped, session.labels, label)
            name = name_in(session.names, label)
        content = await case.workers.run(surface_of, crop, case.scan, label, name)
        return web.Response(body=content, content_type="application/octet-stream")


def _stepped(
    case: OpenCase, session: Session, user: str, runs: Runs, what: str, names: dict[int, str], key: str
) -> None:
    session.step(runs, what, names, key)
    structure = names_of(session, runs) or ", ".join(names.values())
    case.note_edit(user, session, what, structure, delta.changed_voxels(runs))


def names_of(session: Session, runs: Runs) -> str:
    """The structures that runs take from or give to, for people."""
    names: dict[int, Any] = session.names
    labels = np.unique(np.concatenate([runs["before"], runs["after"]])).tolist()
    return ", ".join(name_in(names, k) for k in labels if k)
