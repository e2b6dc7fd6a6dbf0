"""What all routes share: the case store, the cases that are open, the users, and the work in the background."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web

from fluoronav.workspace.cases import CaseStore
from fluoronav.workspace.errors import WorkspaceError
from fluoronav.workspace.jobs import Jobs
from fluoronav.workspace.open_case import OpenCase
from fluoronav.workspace.people import People
from fluoronav.workspace.scan import is_unpacked, known_scan, unpacked_scan
from fluoronav.workspace.simulating import Simulating
from fluoronav.workspace.workers import Workers

_IDLE_S = 1800.0  # after which a case that nobody asks for is closed; chosen
_EVERY_S = 60.0  # between two looks for such cases; chosen

Handler = Callable[[web.Request, OpenCase, str], Awaitable[web.StreamResponse]]


class Desk:
    """The state of the server.

    Parameters
    ----------
    store : CaseStore
    people : People
    instruments : Path, optional
        The operating room's tools and tracker, which exported cases name.
    """

    def __init__(self, store: CaseStore, people: People, instruments: Path | None = None) -> None:
        self.store, self.people, self.workers = store, people, Workers()
        self.instruments = instruments
        self.jobs, self.simulating = Jobs(), Simulating()
        self._open: dict[str, asyncio.Task[OpenCase]] = {}
        self._tried: dict[str, int] = {}

    def user(self, request: web.Request) -> str:
        """The user whose key a request carries.

        Raises
        ------
        NoKey
        """
        user = self.people.of(request.headers.get("X-Key") or request.query.get("key", ""))
        if user is None:
            raise NoKey("this needs a user's key: open the page at the address that `fluoronav workspace` printed")
        return user

    async def case(self, name: str) -> OpenCase:
        """A case, opened if it is not yet."""
        folder = self.store.folder(name)
        task = self._open.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._open[name] = asyncio.create_task(OpenCase.opened(folder, self.workers))
        case = await asyncio.shield(task)
        case.used_s = time.monotonic()
        return case

    async def fresh(self, case: OpenCase) -> OpenCase:
        """The case, opened again where another CT has come into it."""
        if await asyncio.to_thread(known_scan, case.folder) == case.scan:
            return case
        self._open.pop(case.name, None)
        case.close()
        return await self.case(case.name)

    def known(self) -> dict[str, OpenCase]:
        """The cases that are open."""
        return {
            name: t.result() for name, t in self._open.items() if t.done() and not t.cancelled() and not t.exception()
        }

    def of_case(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A route of one case, for a user with a key."""

        async def handle(request: web.Request) -> web.StreamResponse:
            user = self.user(request)
            return await handler(request, await self.case(request.match_info["case"]), user)

        return handle

    def for_user(
        self, handler: Callable[[web.Request, str], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A route of no case, for a user with a key."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await handler(request, self.user(request))

        return handle

    async def background(self, app: web.Application) -> AsyncIterator[None]:
        """Closes what nobody uses, as long as the server runs, and everything at its end."""
        self.workers.warm()
        for name in self.store.names():
            self.jobs.recover(name, self.store.root / name)
        tasks = [asyncio.create_task(self._sweep()), asyncio.create_task(self._prepare())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.jobs.close()
        for case in self.known().values():
            case.close()
        self.workers.close()
        self.simulating.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            for name, case in self.known().items():
                idle = time.monotonic() - case.used_s > _IDLE_S
                busy = any(lock.locked() for lock in case.locks.values()) or case.saving.locked()
                if idle and not busy and not case.listeners and not self.jobs.running(name):
                    del self._open[name]
                    case.close()

    async def _prepare(self) -> None:
        """Unpacks the CT of cases that have arrived, so that they open at once."""
        while True:
            for name in await asyncio.to_thread(self.store.names):
                folder = self.store.root / name
                stamp = (folder / "case.yaml").stat().st_mtime_ns
                if self._tried.get(name) == stamp or await asyncio.to_thread(is_unpacked, folder):
                    continue
                self._tried[name] = stamp
                # What is wrong with it is said when somebody opens it.
                with contextlib.suppress(ValueError, OSError):
                    await self.workers.run(unpacked_scan, folder)
            await asyncio.sleep(_EVERY_S)


class NoKey(WorkspaceError):
    """A request without a user's key."""

    status = 401
