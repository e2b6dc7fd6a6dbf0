"""Routes of cases and their revisions: the worklist, CT, label maps, surfaces, comparison, approval of structures."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from aiohttp import WSMsgType, web
from numpy.typing import NDArray
from pydantic import Field

from fluoronav import __version__
from fluoronav.planning.anatomy import vocabulary
from fluoronav.workspace.cases import CACHE, summary
from fluoronav.workspace.colours import colour_of
from fluoronav.workspace.compare import compared, difference_mask
from fluoronav.workspace.desk import Desk
from fluoronav.workspace.errors import WorkspaceError
from fluoronav.workspace.feedback import feedback
from fluoronav.workspace.label_maps import mapped, name_of
from fluoronav.workspace.open_case import OpenCase
from fluoronav.workspace.plan_work import PlanWork
from fluoronav.workspace.requests import Body, body_of, json_response, number_in, send_voxels
from fluoronav.workspace.routes import Routes
from fluoronav.workspace.surfaces import kept_surface

_MOST_LINES = 2000  # of the audit trail that are sent; chosen
_HEARTBEAT_S = 20.0  # of a WebSocket; chosen


class Judgement(Body):
    """Approval or rejection of structures."""

    revision: int = Field(ge=1)
    labels: list[int] = Field(min_length=1, max_length=4096)
    state: Literal["draft", "approved", "rejected"]


class CaseRoutes(Routes):
    """Cases and their revisions, and approval of structures."""

    def add(self, app: web.Application) -> None:
        router, of_case, for_user = app.router, self.desk.of_case, self.desk.for_user
        router.add_get("/api/me", for_user(self.me))
        router.add_get("/api/vocabulary", for_user(self.vocabulary))
        router.add_get("/api/feedback", for_user(self.feedback))
        router.add_get("/api/cases", for_user(self.cases))
        at = "/api/cases/{case}"
        router.add_get(at, of_case(self.case))
        router.add_get(f"{at}/ct", of_case(self.ct))
        router.add_get(f"{at}/revisions", of_case(self.revisions))
        router.add_get(f"{at}/revisions/{{number}}", of_case(self.revision))
        router.add_get(f"{at}/revisions/{{number}}/labels", of_case(self.labels))
        router.add_get(f"{at}/revisions/{{number}}/surfaces/{{label}}", of_case(self.surface))
        router.add_get(f"{at}/compare", of_case(self.compare))
        router.add_get(f"{at}/compare/mask", of_case(self.mask))
        router.add_post(f"{at}/structures/judge", of_case(self.judge))
        router.add_get(f"{at}/audit", of_case(self.audit))
        router.add_get(f"{at}/events", of_case(self.events))

    async def me(self, request: web.Request, user: str) -> web.StreamResponse:
        return json_response({"user": user, "version": __version__})

    async def vocabulary(self, request: web.Request, user: str) -> web.StreamResponse:
        rows = [
            {"label": s.label, "name": s.name, "kind": s.kind, "colour": colour_of(s.label)}
            for s in sorted(vocabulary().values(), key=lambda s: s.label)
        ]
        return json_response(rows)

    async def feedback(self, request: web.Request, user: str) -> web.StreamResponse:
        return json_response(await asyncio.to_thread(feedback, self.desk.store.root))

    async def cases(self, request: web.Request, user: str) -> web.StreamResponse:
        def work() -> list[dict[str, Any]]:
            store = self.desk.store
            return [summary(store.root / name) for name in store.names()]

        rows, known = await asyncio.to_thread(work), self.desk.known()
        for row in rows:
            case = known.get(row["name"])
            row["editors"] = [e["user"] for e in case.editors()] if case else []
            row["jobs"] = self.desk.jobs.of(row["name"])
        return json_response({"cases": rows})

    async def case(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        case = await self.desk.fresh(case)
        head = await asyncio.to_thread(case.head, user, self.desk.jobs.of(case.name))
        alarms = await asyncio.to_thread(PlanWork(case).alarms)
        for structure in head["structures"]:
            structure["alarms"] = structure["name"] in alarms
        return json_response(head)

    async def ct(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        return await send_voxels(request, case.scan.hounsfield(), None, {"X-Dtype": "int16"})

    async def revisions(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        def work() -> list[dict[str, Any]]:
            return [case.revision_head(case.revisions.read(n)) for n in case.revisions.numbers()]

        return json_response({"revisions": await asyncio.to_thread(work)})

    async def revision(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        revision = await asyncio.to_thread(case.revision, _number(request))
        return json_response(case.revision_head(revision) | {"structures": case.structures(revision)})

    async def labels(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        unpacked = await case.labels_of(_number(request))
        kind = kind_for(request, max([0, *unpacked.counts]))
        return await send_voxels(request, mapped(unpacked.path, case.scan), kind, {"X-Dtype": kind})

    async def surface(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        number, label = _number(request), number_in(request.match_info["label"], "label")
        revision = await asyncio.to_thread(case.revision, number)
        unpacked = await case.labels_of(number)
        name = next((s.name for s in revision.structures if s.label == label), name_of(label))
        target = case.folder / CACHE / f"surface-{revision.labels_hash[:24]}-{label}.bin"
        await case.workers.run(kept_surface, unpacked.path, case.scan, label, name, target)
        return web.Response(body=await asyncio.to_thread(target.read_bytes), content_type="application/octet-stream")

    async def compare(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        a, b = [await self._map(request, case, user, key) for key in ("a", "b")]
        names: dict[int, str] = {}
        for number in await asyncio.to_thread(case.revisions.numbers):
            names |= {s.label: s.name for s in (await asyncio.to_thread(case.revisions.read, number)).structures}
        if user in case.sessions:
            names |= case.sessions[user].names
        return json_response(await asyncio.to_thread(compared, a, b, names))

    async def mask(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        a, b = [await self._map(request, case, user, key) for key in ("a", "b")]
        return await send_voxels(
            request, a, "uint8", {"X-Dtype": "uint8"}, lambda k, end: difference_mask(a[k:end], b[k:end])
        )

    async def _map(self, request: web.Request, case: OpenCase, user: str, key: str) -> NDArray:
        wanted = request.query.get(key, "")
        if wanted == "session":
            return case.known_session(user).labels
        return mapped((await case.labels_of(number_in(wanted, key))).path, case.scan)

    async def judge(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await body_of(request, Judgement)
        revision = await case.judge(user, body.revision, body.labels, body.state)
        session = case.sessions.get(user)
        return json_response({"revision": revision.number, "session": session.state() if session else None})

    async def audit(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        last = min(number_in(request.query.get("last", "200"), "last"), _MOST_LINES)
        return json_response({"lines": await asyncio.to_thread(case.trail.last, last) if last else []})

    async def events(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=1024, compress=False)
        await socket.prepare(request)
        queue = case.listener()
        sender = asyncio.create_task(_say(socket, case, queue, self.desk))
        try:
            async for message in socket:
                if message.type == WSMsgType.ERROR:
                    break
        finally:
            case.listeners.discard(queue)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket


async def _say(socket: web.WebSocketResponse, case: OpenCase, queue: asyncio.Queue[dict[str, Any]], desk: Desk) -> None:
    """Tells a page what there is, and then what happens."""
    try:
        await socket.send_json({"event": "jobs", "jobs": desk.jobs.of(case.name)})
        await socket.send_json({"event": "editors", "editors": case.editors()})
        while not socket.closed:
            await socket.send_json(await queue.get())
    except ConnectionError:
        return


def _number(request: web.Request) -> int:
    return number_in(request.match_info["number"], "revision")


def kind_for(request: web.Request, most: int) -> str:
    """dtype in which labels are sent: the one that is asked for, or the smallest that holds them.

    Raises
    ------
    WorkspaceError
        It would not hold them.
    """
    wanted = request.query.get("dtype") or ("uint8" if most < 256 else "uint16")
    if wanted not in ("uint8", "uint16"):
        raise WorkspaceError(f"dtype must be uint8 or uint16, not {wanted[:20]!r}")
    if wanted == "uint8" and most > 255:
        raise WorkspaceError(f"label {most} does not fit into uint8: ask for uint16")
    return wanted
