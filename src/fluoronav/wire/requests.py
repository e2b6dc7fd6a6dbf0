"""What a request of each kind takes as its arguments, and how a client makes one."""

from __future__ import annotations

import time
import uuid
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from fluoronav.wire.codec import InvalidMessage
from fluoronav.wire.messages import PROTOCOL_VERSION, Request

# Names and ids of cases hold a person's words; they are longer than the names of sources and tools.
Words = Annotated[StrictStr, Field(min_length=1, max_length=256)]


class Args(BaseModel):
    """The arguments of a request that takes none; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class CaseLoad(Args):
    """`case`: a name among the launch file's `cases`."""

    case: Words


class CaseConfirm(Args):
    """`case`: the id that `health.case` says."""

    case: Words


class PlanSet(Args):
    """`trajectories`: names of the case's planned paths, those to be shown."""

    trajectories: Annotated[list[Words], Field(max_length=256)]


class ModeSet(Args):
    """`mode`: what is asked for."""

    mode: Literal["live", "shadow"]


class AlertAcknowledge(Args):
    """`alert`: the id of an open alert."""

    alert: Words


ARGS: MappingProxyType[str, type[Args]] = MappingProxyType(
    {
        "case.load": CaseLoad,
        "case.confirm": CaseConfirm,
        "plan.set": PlanSet,
        "mode.set": ModeSet,
        "alert.acknowledge": AlertAcknowledge,
    }
)


def decode_args(request: Request) -> Args:
    """The arguments of a request as its kind takes them.

    Raises
    ------
    InvalidMessage
        It names the argument.
    """
    try:
        return ARGS.get(request.op, Args).model_validate(request.args)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(x) for x in ("args", *first["loc"]))
        given: Any = first.get("input")
        shown = "" if isinstance(given, dict) else f" (is {str(given)[:40]!r})"
        raise InvalidMessage(where, first["msg"] + shown) from error


def make_request(op: str, args: dict[str, Any] | None = None, user: str = "") -> dict[str, Any]:
    """A request as a client sends it: with an id of its own and the time, so that nobody can send it a second time."""
    return {
        "v": PROTOCOL_VERSION,
        "id": uuid.uuid4().hex,
        "t": time.time_ns(),
        "op": op,
        "args": args or {},
        "user": user,
    }
