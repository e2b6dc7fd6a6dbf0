"""Routes of work in the background: uploads, jobs, and what they wrote."""

from __future__ import annotations

import asyncio
import re
import secrets

from aiohttp import web

from fluoronav.durable import made_folder
from fluoronav.paths import private_opener
from fluoronav.workspace.cases import CACHE
from fluoronav.workspace.errors import Refused, Unknown, WorkspaceError
from fluoronav.workspace.open_case import OpenCase
from fluoronav.workspace.requests import body_of, json_response
from fluoronav.workspace.routes import Routes
from fluoronav.workspace.verbs import JobRequest, start

MOST_UPLOAD = 512 << 20  # of a label map or surface that a user brings; chosen
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_CHUNK = 1 << 20


class JobRoutes(Routes):
    """Work in the background."""

    def add(self, app: web.Application) -> None:
        at, of_case = "/api/cases/{case}", self.desk.of_case
        app.router.add_put(f"{at}/uploads/{{name}}", of_case(self.upload))
        app.router.add_get(f"{at}/jobs", of_case(self.all))
        app.router.add_post(f"{at}/jobs", of_case(self.start))
        app.router.add_post(f"{at}/jobs/{{job}}/again", of_case(self.again))
        app.router.add_delete(f"{at}/jobs/{{job}}", of_case(self.cancel))
        app.router.add_get(f"{at}/jobs/{{job}}/files/{{path:.+}}", of_case(self.file))

    async def upload(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        name = request.match_info["name"]
        if not _NAME.fullmatch(name):
            raise WorkspaceError("a file's name must be letters, digits, dot, _ and -, at most 100")
        folder = made_folder(case.folder / CACHE / f"upload-{secrets.token_hex(6)}")
        target, size = folder / name, 0
        file = await asyncio.to_thread(open, target, "wb", opener=private_opener)
        try:
            async for data in request.content.iter_chunked(_CHUNK):
                size += len(data)
                if size > MOST_UPLOAD:
                    raise web.HTTPRequestEntityTooLarge(MOST_UPLOAD, size)
                await asyncio.to_thread(file.write, data)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            file.close()
        return json_response({"upload": f"{folder.name}/{name}", "bytes": size})

    async def all(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        return json_response({"jobs": self.desk.jobs.of(case.name)})

    async def start(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        body = await body_of(request, JobRequest)
        job = start(self.desk.jobs, case, user, body, self.desk.instruments)
        return json_response({"job": job.job})

    async def again(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        broken = self.desk.jobs.get(case.name, request.match_info["job"])
        if broken.state != "broken":
            raise Refused(f"the job is {broken.state}, not broken off")
        job = start(self.desk.jobs, case, user, JobRequest.model_validate(broken.request), self.desk.instruments)
        self.desk.jobs.forget(case, broken)
        return json_response({"job": job.job})

    async def cancel(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        job = self.desk.jobs.get(case.name, request.match_info["job"])
        if job.state == "broken":
            self.desk.jobs.forget(case, job)
            return json_response(job.head())
        await self.desk.jobs.cancel(case, job)
        return json_response(job.head())

    async def file(self, request: web.Request, case: OpenCase, user: str) -> web.StreamResponse:
        job = self.desk.jobs.get(case.name, request.match_info["job"])
        out = (job.folder / "out").resolve()
        path = (out / request.match_info["path"]).resolve()
        if not path.is_relative_to(out) or not path.is_file():
            raise Unknown("the job has written no such file")
        # A document is shown; all else is for other programs.
        how = "inline" if path.suffix == ".pdf" else "attachment"
        headers = {"Content-Disposition": f'{how}; filename="{re.sub(r"[^A-Za-z0-9._-]", "_", path.name)}"'}
        return web.FileResponse(path, headers=headers)
