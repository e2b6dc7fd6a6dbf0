"""Requests and replies: what a client sends, what each kind takes as its arguments, and what comes back."""

from __future__ import annotations

import time
import uuid
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fluoronav.wire.messages import Message, Received
from fluoronav.wire.values import NAME_CHARS, PROTOCOL_VERSION, Mode, Time, doc

# Names and ids of cases hold a person's words; they are longer than the names of sources and tools.
WORDS_CHARS = 256
Words = Annotated[str, Meta(min_length=1, max_length=WORDS_CHARS)]


class Request(Received, kw_only=True, frozen=True):
    """A client's request."""

    id: Annotated[
        int | Annotated[str, Meta(max_length=128)],
        doc("another for each request"),
    ]
    t: Annotated[Time | None, doc("when the request was made; see below where it is required")] = None
    op: Annotated[
        Literal[
            "status",
            "case.load",
            "case.confirm",
            "case.info",
            "plan.set",
            "registration.start",
            "registration.accept",
            "registration.reject",
            "alert.acknowledge",
            "mode.set",
            "record.start",
            "record.stop",
            "stop",
        ],
        doc("what is asked for, see below"),
    ]
    args: Annotated[dict[str, Any], doc("its arguments, by name")] = msgspec.field(default_factory=dict[str, Any])
    user: Annotated[str, Meta(max_length=NAME_CHARS, description="who asks; printable characters")] = ""


class ReplyError(msgspec.Struct, kw_only=True):
    """Why a request was refused."""

    code: Annotated[str, doc("for programs, see below")]
    text: Annotated[str, doc("for people")]


class Reply(Message, kw_only=True):
    """The answer to one request."""

    id: Annotated[int | str | None, doc("the request's; null where it could not be read")]
    ok: Annotated[bool, doc("whether it was granted")]
    result: Annotated[Any, doc("what was asked for; only where `ok`")] = UNSET
    error: Annotated[ReplyError | UnsetType, doc("why not; only where not `ok`")] = UNSET


class Args(msgspec.Struct, frozen=True):
    """The arguments of a request that takes none; unknown keys are ignored."""


class CaseLoad(Args, frozen=True):
    """`case`: a name among the launch file's `cases`."""

    case: Words


class CaseConfirm(Args, frozen=True):
    """`case`: the id that `health.case` says."""

    case: Words


class PlanSet(Args, frozen=True):
    """`trajectories`: names of the case's planned paths, those to be shown."""

    trajectories: Annotated[list[Words], Meta(max_length=256)]


class ModeSet(Args, frozen=True):
    """`mode`: what is asked for."""

    mode: Mode


class AlertAcknowledge(Args, frozen=True):
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
