"""Routes of the levels: a person answers which vertebra is which, and all levels move together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from pydantic import Field

from fluoronav.planning.levels import Moved, is_move, move_back, move_levels, steps_between
from fluoronav.planning.questions import answer, ask_again, read_questions
from fluoronav.workspace.errors import OutOfStep, Refused
from fluoronav.workspace.open_case import OpenCase
from fluoronav.workspace.published import publish
from fluoronav.workspace.requests import Body, body_of, json_response
from fluoronav.workspace.routes import Routes
from fluoronav.workspace.session import Session

_KEY = "level"  # of the engines' question


class Seen(Body):
    """The revision that the user looked at."""

    revision: int = Field(ge=1)


class Answer(Seen):
    """What a vertebra is drafted as, and which it is."""

    drafted: str = Field(pattern=r"^[CTL]\d{1,2}$")
    true: str = Field(pattern=r"^[CTL]\d{1,2}$")


class LevelRoutes(Routes):
    """The levels of the spine."""

    def add(self, app: web.Application) -> None:
        at, of_case = "/api/cases/{case}/levels", self.desk.of_case
        app.router.add_post(at, of_case(self.answer))
        app.router.add_post(f"{at}/back", of_case(self.back))

    async def answer(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await body_of(request, Answer)
        by = steps_between(body.drafted, body.true)
        said = f"{body.drafted} is {body.true}"
        if not by:
            await asyncio.to_thread(self._confirmed, case, user, body, said)
            return json_response(await self._state(case, user, None))

        def note(moved: Moved) -> None:
            texts = answer(case.folder, _KEY, said, user)
            self._audit(case, user, moved, what="moved", by=by, said=said, questions=texts)

        moved = await self._changed(case, user, body.revision, note, move_levels, by)
        return json_response(await self._state(case, user, moved))

    async def back(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await body_of(request, Seen)

        def note(moved: Moved) -> None:
            ask_again(case.folder, _KEY)
            self._audit(case, user, moved, what="moved back")

        moved = await self._changed(case, user, body.revision, note, move_back)
        return json_response(await self._state(case, user, moved))

    async def _changed(
        self,
        case: OpenCase,
        user: str,
        number: int,
        note: Callable[[Moved], None],
        work: Callable[..., Moved],
        *arguments: Any,
    ) -> Moved:
        """Makes the revision in a process of its own, and what follows from it."""
        async with case.locks[user], case.saving, case.planning:
            session = case.sessions.get(user)
            await asyncio.to_thread(_check, case, session, number)
            moved = await case.workers.run(work, case.folder, *arguments, author=user, parent=number)

            def follow() -> None:
                publish(case.folder)
                note(moved)
                if session is not None and not (session.base.revision and session.base.revision.branch):
                    session.rebase(case.base_of(moved.revision.number), keep_steps=False)

            await asyncio.to_thread(follow)
        case.tell({"event": "revision", "number": moved.revision.number, "author": user, "branch": ""})
        if (plan := moved.plan) is not None:
            case.tell({"event": "plan", "revision": plan.revision, "state": plan.state, "author": user})
        return moved

    def _confirmed(self, case: OpenCase, user: str, body: Answer, said: str) -> None:
        newest = case.revisions.newest()
        if newest is None or newest.number != body.revision:
            raise _out_of_step(newest.number if newest else 0, body.revision)
        texts = answer(case.folder, _KEY, said, user)
        case.trail.add("levels", user=user, what="confirmed", said=said, revision=body.revision, questions=texts)

    def _audit(self, case: OpenCase, user: str, moved: Moved, **what: Any) -> None:
        plan = moved.plan.revision if moved.plan else 0
        case.trail.add("levels", user=user, revision=moved.revision.number, plan=plan, notes=list(moved.notes), **what)

    async def _state(self, case: OpenCase, user: str, moved: Moved | None) -> dict[str, Any]:
        newest = await asyncio.to_thread(case.revisions.newest)
        questions = (await asyncio.to_thread(read_questions, case.folder))["questions"]
        session = case.sessions.get(user)
        return {
            "revision": newest.number if newest else 0, "can_move_back": bool(newest and is_move(newest)),
            "notes": list(moved.notes) if moved else [], "questions": questions,
            "session": session.state() if session else None,
        }  # fmt: skip


def _check(case: OpenCase, session: Session | None, number: int) -> None:
    newest = case.revisions.newest()
    if newest is None or newest.number != number:
        raise _out_of_step(newest.number if newest else 0, number)
    if session is not None and session.unsaved:
        raise Refused("your edits are not saved: save first, since the levels of a revision are moved")


def _out_of_step(newest: int, seen: int) -> OutOfStep:
    return OutOfStep(f"the newest revision is {newest}, not {seen}: look at it first", newest=newest)
