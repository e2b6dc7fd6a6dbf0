"""Marks: a person says that this moment is to be kept. `pacs mark` and displays ask, `pacs live` answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec
import zmq

from fluoronav.pacs.heard import Moment
from fluoronav.pacs.live_results import Mark
from fluoronav.wire import bind
from fluoronav.wire.marks import MOST_MARK_BYTES, MarkReply, MarkRequest

_REPLY_S = 1.0  # on the way; chosen


class MarkError(RuntimeError):
    """A mark that was not taken; the text says why."""


@dataclass(frozen=True)
class _Pending:
    """A mark that was taken, and whom its reply goes to."""

    to: list[bytes]
    moment: Moment
    done: Future[int]
    until_s: float  # monotonic


class Marks:
    """The answering side; belongs to one thread.

    Parameters
    ----------
    context : zmq.Context
    endpoint : str

    Raises
    ------
    EndpointInUse
    """

    def __init__(self, context: zmq.Context, endpoint: str) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MOST_MARK_BYTES)
        bind(self.socket, endpoint, "marks")
        self._pending: list[_Pending] = []

    def serve(self, take: Callable[[MarkRequest], tuple[Moment, Future[int]]]) -> None:
        """Takes the marks that came, and answers those whose objects are on the disk or whose time is up; never waits.

        Parameters
        ----------
        take : callable
            The moment, and the number of its objects to come; raises ValueError for a mark that is not taken.
        """
        while self.socket.poll(0):
            *to, body = self.socket.recv_multipart()
            try:
                asked = msgspec.msgpack.decode(body, type=MarkRequest)
                moment, done = take(asked)
            except (msgspec.MsgspecError, ValueError) as error:
                self._answer(to, MarkReply(error=str(error)))
                continue
            self._pending.append(_Pending(to, moment, done, time.monotonic() + asked.wait_s))
        now, waiting = time.monotonic(), self._pending
        self._pending = [p for p in waiting if not p.done.done() and now < p.until_s]
        for pending in waiting:
            if pending not in self._pending:
                self._answer(pending.to, _reply(pending.moment, pending.done))

    def close(self) -> None:
        """Answers what it can, and closes."""
        self.serve(_no_more)
        self.socket.close(500)

    def _answer(self, to: list[bytes], reply: MarkReply) -> None:
        self.socket.send_multipart([*to, msgspec.msgpack.encode(reply)], zmq.NOBLOCK)


def ask(endpoint: str, mark: Mark, seconds: float) -> MarkReply:
    """Marks the present moment; returns when its objects are on the disk.

    Raises
    ------
    MarkError
        Nobody answers, or the mark was refused.
    """
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        content = MarkRequest(
            note=mark.note, accepted_by=mark.accepted_by, organization=mark.organization, wait_s=seconds
        )
        socket.send(msgspec.msgpack.encode(content))
        # A reply that comes when the time is up says more than none.
        if not socket.poll(int((seconds + _REPLY_S) * 1000)):
            raise MarkError(
                f"nobody answers at {endpoint} within {seconds:g} s; is `fluoronav pacs live` running with this site "
                "file? The moment may have been taken: `fluoronav pacs status` says what waits"
            )
        answer = msgspec.msgpack.decode(socket.recv(), type=MarkReply)
    if not answer.error and not answer.objects:
        raise MarkError(
            f"frame {answer.seq} is marked, but its objects were not made within {seconds:g} s; they will be, "
            "see the log of `pacs live`"
        )
    if answer.error:
        raise MarkError(f"nothing was marked: {answer.error}")
    return answer


def _reply(moment: Moment, done: Future[int]) -> MarkReply:
    error = done.exception() if done.done() else None
    if error is not None:
        return MarkReply(error=str(error))
    age = (time.time_ns() - moment.header.t_acq) / 1e9
    return MarkReply(seq=moment.header.seq, age_s=max(age, 0.0), objects=done.result() if done.done() else 0)


def _no_more(asked: MarkRequest) -> tuple[Moment, Future[int]]:
    raise ValueError("`pacs live` is ending")
