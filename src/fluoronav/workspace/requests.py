"""How requests are read and answered: JSON bodies, ranges of slices, and errors as JSON."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
from aiohttp import web
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from fluoronav.case import CaseError
from fluoronav.display.packing import with_head
from fluoronav.planning.levels import LevelError
from fluoronav.planning.plan.file import PlanError
from fluoronav.planning.plan.revisions import PlanConflict
from fluoronav.planning.revisions import Conflict, RevisionError
from fluoronav.site.audit import AuditError
from fluoronav.validation import first_error
from fluoronav.workspace.errors import WorkspaceError
from fluoronav.workspace.journal import JournalError

log = logging.getLogger("fluoronav")
_CHUNK_BYTES = 4 << 20  # of voxels that are sent at a time; chosen
_STEPS = (1, 2, 4)

Model = TypeVar("Model", bound="Body")


class Body(BaseModel):
    """A JSON body; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


async def body_of(request: web.Request, model: type[Model]) -> Model:
    """The JSON body of a request.

    Raises
    ------
    WorkspaceError
    """
    try:
        return model.model_validate(await json_of(request))
    except ValidationError as error:
        raise WorkspaceError(f"the body cannot be read: {first_error(error)}") from error


async def json_of(request: web.Request) -> dict[str, Any]:
    """The JSON object in a request's body; an empty body is an empty object."""
    content = await request.read()
    try:
        out = json.loads(content) if content else {}
    except (ValueError, RecursionError) as error:
        raise WorkspaceError("the body is not JSON") from error
    if not isinstance(out, dict):
        raise WorkspaceError("the body must be a JSON object")
    return out


def number_in(text: str, what: str) -> int:
    """A number in an address.

    Raises
    ------
    WorkspaceError
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise WorkspaceError(f"{what} must be a number from 0, not {text[:20]!r}")
    return int(text)


def json_response(content: Any) -> web.Response:
    """An answer as JSON."""
    return web.Response(body=json.dumps(content, separators=(",", ":")).encode(), content_type="application/json")


def packed_response(head: dict[str, Any], payload: bytes = b"") -> web.Response:
    """An answer as head and payload."""
    return web.Response(body=with_head(head, payload), content_type="application/octet-stream")


async def send_voxels(
    request: web.Request, voxels: NDArray, kind: str | None, headers: dict[str, str], change: Callable | None = None
) -> web.StreamResponse:
    """Sends slices of a volume, a few at a time, so that memory does not grow with the volume.

    Parameters
    ----------
    request : Request
        ``first``, ``count``, ``step`` and ``gzip`` in its address are heeded.
    voxels : array, shape (z, y, x)
    kind : str, optional
        dtype to send; that of the voxels by default.
    headers : dict
    change : callable, optional
        Makes what is sent of some slices: takes the first index and one after the last.
    """
    depth = voxels.shape[0]
    first = number_in(request.query.get("first", "0"), "first")
    count = number_in(request.query.get("count", str(max(depth - first, 0))), "count")
    step = number_in(request.query.get("step", "1"), "step")
    if first >= depth or not 1 <= count <= depth - first:
        raise WorkspaceError(f"slices {first} to {first + count} are not in a volume of {depth}")
    if step not in _STEPS:
        raise WorkspaceError(f"step must be 1, 2 or 4, not {step}")
    dtype = np.dtype(kind) if kind else voxels.dtype
    rows, columns = (-(-n // step) for n in voxels.shape[1:])
    at_a_time = max(_CHUNK_BYTES // (rows * columns * dtype.itemsize), 1) * step
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", **headers})
    packer = zlib.compressobj(1, wbits=31) if request.query.get("gzip") == "1" else None
    if packer:
        response.headers["Content-Encoding"] = "gzip"
    else:
        response.content_length = -(-count // step) * rows * columns * dtype.itemsize
    await response.prepare(request)

    def made(k: int) -> bytes:
        end = min(k + at_a_time, first + count)
        slab = change(k, end) if change else voxels[k:end]
        data = np.ascontiguousarray(slab[::step, ::step, ::step], dtype)
        return packer.compress(data.data) if packer else data.tobytes()

    for k in range(first, first + count, at_a_time):
        if data := await asyncio.to_thread(made, k):
            await response.write(data)
    if packer:
        await response.write(packer.flush())
    await response.write_eof()
    return response


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answers what fails with a status and a text for people; addresses and bodies are never logged."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400 or not request.path.startswith("/api/"):
            raise
        answer = _error(error.status, error.text or error.reason, {})
        if error.status in (403, 413):  # the rest of its body is not read
            answer.force_close()
        return answer
    except WorkspaceError as error:
        return _error(error.status, str(error), error.more)
    except (Conflict, PlanConflict) as error:
        return _error(409, str(error), {"newest": error.newest})
    except (CaseError, RevisionError, PlanError, LevelError, JournalError) as error:
        return _error(422, _without_folders(request, str(error)), {})
    except AuditError as error:
        log.error("%s", error)
        return _error(507, "the audit trail cannot be written; free space on the disk, then load the case again", {})
    except OSError as error:
        if request.transport is None or isinstance(error, ConnectionError):
            raise
        log.error("%s", error)
        status = 507 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 500
        return _error(status, f"the disk says: {error.strerror}", {})


def _error(status: int, text: str, more: dict[str, Any]) -> web.Response:
    body = json.dumps({"error": text[:2000], **more}).encode()
    return web.Response(status=status, body=body, content_type="application/json")


def _without_folders(request: web.Request, text: str) -> str:
    """A text without the place of the case store on this computer."""
    return text.replace(f"{request.app[STORE_ROOT]}/", "")


STORE_ROOT: web.AppKey[str] = web.AppKey("store_root", str)
