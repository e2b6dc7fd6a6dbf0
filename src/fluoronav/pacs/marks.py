"""Marks: a person says that this moment is to be kept. `fluoronav pacs mark` asks, `pacs live` answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

import msgspec
import zmq

from fluoronav.pacs.heard import Moment
from fluoronav.pacs.live_results import Mark
from fluoronav.wire import bind

_MOST_BYTES = 16384  # of a mark; chosen: a note of a few pages


class MarkError(RuntimeError):
    """A mark that was not taken; the text says why."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    v: int = 1
    note: str = ""
    accepted_by: str = ""
    organization: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: `objects` are on the disk, `seq` is the frame, `age_s` how long ago it was exposed."""

    error: str = ""
    seq: int = 0
    age_s: float = 0.0
    objects: int = 0


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
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
        bind(self.socket, endpoint, "marks")
        self._pending: tuple[Moment, Future[int]] | None = None

    def serve(self, take: Callable[[Mark], tuple[Moment, Future[int]]]) -> None:
        """Takes a mark if one came, and answers the last when its objects are on the disk; never waits."""
        if self._pending is not None:
            moment, done = self._pending
            if done.done():
                self._pending = None
                self._answer(_answer(moment, done))
            return
        if not self.socket.poll(0):
            return
        try:
            ask = msgspec.msgpack.decode(self.socket.recv(), type=Ask)
            self._pending = take(Mark(ask.note, ask.accepted_by, ask.organization))
        except (msgspec.MsgspecError, ValueError) as error:
            self._answer(Answer(error=str(error)))

    def close(self) -> None:
        """Answers what it can, and closes."""
        self.serve(_no_more)
        self.socket.close(500)

    def _answer(self, answer: Answer) -> None:
        self.socket.send(msgspec.msgpack.encode(answer), zmq.NOBLOCK)


def ask(endpoint: str, mark: Mark, seconds: float) -> Answer:
    """Marks the present moment; returns when its objects are on the disk.

    Raises
    ------
    MarkError
        Nobody answers, or the mark was refused.
    """
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        content = Ask(note=mark.note, accepted_by=mark.accepted_by, organization=mark.organization)
        socket.send(msgspec.msgpack.encode(content))
        if not socket.poll(int(seconds * 1000)):
            raise MarkError(
                f"nobody answers at {endpoint} within {seconds:g} s; is `fluoronav pacs live` running with this site "
                "file? The moment may have been taken: `fluoronav pacs status` says what waits"
            )
        answer = msgspec.msgpack.decode(socket.recv(), type=Answer)
    if answer.error:
        raise MarkError(f"nothing was marked: {answer.error}")
    return answer


def _answer(moment: Moment, done: Future[int]) -> Answer:
    error = done.exception()
    if error is not None:
        return Answer(error=str(error))
    age = (time.time_ns() - moment.header.t_acq) / 1e9
    return Answer(seq=moment.header.seq, age_s=max(age, 0.0), objects=done.result())


def _no_more(mark: Mark) -> tuple[Moment, Future[int]]:
    raise ValueError("`pacs live` is ending")
