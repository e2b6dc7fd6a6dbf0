"""What runs while one case is loaded, and what people have said of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fluoronav.case import Case
from fluoronav.stream.pipeline.accounting import FrameAccount
from fluoronav.stream.pipeline.chain import Chain
from fluoronav.stream.pipeline.frames import FrameLoop
from fluoronav.stream.pipeline.session import Accepted, Mark

log = logging.getLogger("fluoronav")

# Commands that wait for the frame path; more wait only where it is stuck.
_MOST_WAITING = 256


class RequestError(ValueError):
    """A request that cannot be granted; `code` is for programs, the text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(eq=False)
class Work:
    """What runs while one case is loaded, and what people have said of it.

    Attributes
    ----------
    case : Case
    case_name : str
        Its name among the launch file's `cases`; empty for the first.
    chain : Chain
    account : FrameAccount
    loop : FrameLoop
    wake : callable
        Has the frame path look at its commands.
    plan : tuple of str
        Names of the trajectories that are shown.
    restored : bool
        It goes on with the session before a restart.
    confirmed : Mark or None
        Who has confirmed the patient.
    accepted : Accepted or None
        Who has accepted the registration, and where it was.
    """

    case: Case
    case_name: str
    chain: Chain
    account: FrameAccount
    loop: FrameLoop
    wake: Callable[[], None]
    plan: tuple[str, ...] = field(default=())
    restored: bool = False
    confirmed: Mark | None = None
    accepted: Accepted | None = None

    def __post_init__(self) -> None:
        self.plan = self.plan or tuple(t.name for t in self.case.plan)
        self._handles = self.chain.handles

    def handler(self, op: str) -> Callable[..., Any]:
        """What carries out a request between two frames.

        Raises
        ------
        RequestError
            No stage of the launch file does.
        """
        handler = self._handles.get(op)
        if handler is None:
            raise RequestError("not_available", f"no stage of this launch file answers {op}")
        return handler

    def order(self, command: Callable[[], object]) -> None:
        """Has the frame path do something between two frames; an error there is the command's own.

        Raises
        ------
        RequestError
            Too many commands wait for it.
        """

        def obeyed() -> None:
            try:
                command()
            except Exception:
                log.exception("a command between two frames has failed; the frames go on")

        if len(self.loop.commands) >= _MOST_WAITING:
            raise RequestError("busy", f"{_MOST_WAITING} commands wait for the frame path already")
        self.loop.commands.append(obeyed)
        self.wake()

    def follow_accepted(self) -> None:
        """Notes where the registration that was accepted is now."""
        standing, accepted = self.loop.standing, self.accepted
        latest = standing.pose if standing.accepted else None
        if latest is not None and accepted is not None:
            T_camera_ct = tuple(latest.T_camera_ct.ravel().tolist())
            now = accepted.model_copy(update={"T_camera_ct": T_camera_ct})
            if self.accepted is accepted:
                self.accepted = now
