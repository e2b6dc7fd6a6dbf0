"""Routes of the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from aiohttp import web
from pydantic import Field

from fluoronav.planning.plan.schema import Plan
from fluoronav.planning.simulation.catalogue import read_catalogue
from fluoronav.workspace.desk import Desk
from fluoronav.workspace.errors import Refused, Unknown
from fluoronav.workspace.open_case import OpenCase
from fluoronav.workspace.plan_work import PlanWork, surgery_of
from fluoronav.workspace.requests import Body, body_of, json_of, json_response, number_in
from fluoronav.workspace.routes import Routes
from fluoronav.workspace.simulating import simulated


class Parent(Body):
    """The revision of the plan that the page shows; 0 for none."""

    parent: int = Field(ge=0)


class Items(Parent):
    """Items that are put into the plan, and ids of those that are taken out."""

    put: list[dict[str, Any]] = Field(default=[], max_length=500)
    remove: list[str] = Field(default=[], max_length=500)
    note: str = Field(default="", max_length=400)


class Acknowledged(Parent):
    """Flags that a person has read."""

    flags: list[str] = Field(min_length=1, max_length=500)


class Stated(Parent):
    """What the plan is to be."""

    state: Literal["draft", "reviewed", "approved"]
    accepted: list[str] = Field(default=[], max_length=200)  # what a check called unsafe, and the user has seen


class Simulated(Body):
    """Items as they are while a person changes them; nothing is kept."""

    items: list[dict[str, Any]] = Field(default=[], max_length=500)
    exact: bool = False
    prepare: list[str] = Field(default=[], max_length=4, description="bones that will be cut")
    page: str = Field(default="", max_length=64, description="who asks: of each page the newest request alone waits")


class PlanRoutes(Routes):
    """The plan."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._warming: asyncio.Task[None] | None = None

    def add(self, app: web.Application) -> None:
        at, of_case = "/api/cases/{case}/plan", self.desk.of_case
        app.router.add_get(at, of_case(self.newest))
        app.router.add_get("/api/implants", self.desk.for_user(self.implants))
        app.router.add_get("/api/cases/{case}/plans", of_case(self.all))
        app.router.add_get(f"{at}/{{number:\\d+}}", of_case(self.one))
        app.router.add_post(f"{at}/items", of_case(self.items))
        app.router.add_post(f"{at}/acknowledge", of_case(self.acknowledge))
        app.router.add_post(f"{at}/state", of_case(self.state))
        app.router.add_post(f"{at}/refit", of_case(self.refit))
        app.router.add_post(f"{at}/grade", of_case(self.grade))
        app.router.add_post(f"{at}/simulate", of_case(self.simulate))

    async def implants(self, request: web.Request, user: str) -> web.StreamResponse:
        catalogue = await asyncio.to_thread(read_catalogue)
        families = [
            {"name": name, "shape": f.shape, "sizes": list(f.sizes), "demonstration": f.demonstration}
            for name, (f, _) in catalogue.families.items()
        ]
        return json_response({"families": families})

    async def newest(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        work, plan = PlanWork(case), await asyncio.to_thread(case.plans.newest)
        if plan is not None and (self._warming is None or self._warming.done()):
            self._warming = asyncio.create_task(asyncio.to_thread(work.warm, plan))
        return json_response(await asyncio.to_thread(work.shown, plan))

    async def all(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        def work() -> list[dict[str, Any]]:
            case.plans.newest()
            plans = [case.plans.read(n) for n in case.plans.numbers()]
            return [
                {
                    "revision": p.revision, "state": p.state, "author": p.author, "made": p.made, "note": p.note,
                    "items": len(p.items),
                }
                for p in plans
            ]  # fmt: skip

        return json_response({"revisions": await asyncio.to_thread(work)})

    async def one(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        number, work = number_in(request.match_info["number"], "revision"), PlanWork(case)
        if number not in case.plans.numbers():
            raise Unknown(f"the plan has no revision {number}")
        return json_response(await asyncio.to_thread(lambda: work.shown(case.plans.read(number))))

    async def items(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body, work = await body_of(request, Items), PlanWork(case)
        return await self._done(case, work, lambda: work.edit(user, body.parent, body.put, body.remove, body.note))

    async def acknowledge(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body, work = await body_of(request, Acknowledged), PlanWork(case)
        return await self._done(case, work, lambda: work.acknowledge(user, body.parent, body.flags))

    async def state(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body, work = await body_of(request, Stated), PlanWork(case)
        return await self._done(case, work, lambda: work.state(user, body.parent, body.state, body.accepted))

    async def refit(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body, work = await body_of(request, Parent), PlanWork(case)
        return await self._done(case, work, lambda: work.refit(user, body.parent))

    async def grade(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        content, work = await json_of(request), PlanWork(case)
        return json_response(await asyncio.to_thread(work.grade, content.get("screw")))

    async def simulate(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await body_of(request, Simulated)
        items = surgery_of(body.items)
        newest = await asyncio.to_thread(case.revisions.newest)
        if newest is None:
            raise Refused("there is no label map: what is cut is taken from it")
        labels = await case.labels_of(newest.number)
        structures = {s.name: s.label for s in newest.structures if s.state != "rejected"}
        content = await self.desk.simulating.run(
            (case.name, user, body.page), simulated, labels.path, case.scan, structures, items, body.exact, body.prepare
        )
        return web.Response(body=content, content_type="application/octet-stream")

    async def _done(self, case: OpenCase, work: PlanWork, change: Callable[[], Plan]) -> web.StreamResponse:
        async with case.planning:
            return json_response(await asyncio.to_thread(lambda: work.shown(change())))
