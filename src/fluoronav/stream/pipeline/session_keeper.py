"""Keeps the session on the disk, and goes on with it after a restart."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np

from fluoronav.site.launch import LaunchFile
from fluoronav.stream.pipeline.session import MOST_ALERTS, Session, SessionError, SessionFile
from fluoronav.stream.pipeline.work import Work
from fluoronav.stream.stage import HoldsAlerts, HoldsPose

log = logging.getLogger("fluoronav")


@dataclass(frozen=True, slots=True)
class KeptEvery:
    """How often the session is written although nobody has asked for anything.

    Attributes
    ----------
    pose_s : float
        An accepted pose changes with every turn of the C-arm: a restart must know it as of so long before.
    unchanged_s : float
        A session that nothing changes is said to be of now so often.
    """

    pose_s: float = 5.0
    unchanged_s: float = 600.0


EVERY = KeptEvery()


class SessionKeeper:
    """The session of one launch file.

    Parameters
    ----------
    launch : LaunchFile

    Attributes
    ----------
    mode : str
        What was asked for, whatever is in effect.
    fault : str
        Why the session could not be kept; empty when it is.
    """

    def __init__(self, launch: LaunchFile) -> None:
        self._launch = launch
        self._file = SessionFile(launch.audit_folder, launch.source)
        self._kept: Session | None = None
        self._keeping = Lock()
        self._over = False
        self._pose_kept_at = 0.0
        self.mode: Literal["live", "shadow"] = launch.mode
        self.fault = ""

    def before(self) -> tuple[Session | None, str]:
        """The session that a start goes on with, and why there is none although one was kept."""
        try:
            session = self._file.read(str(self._launch.path))
        except SessionError as error:
            return None, str(error)
        if session is not None and session.case_name and session.case_name not in self._launch.cases:
            return None, f"its case {session.case_name!r} is not in the launch file any more"
        return session, ""

    def go_on(self, work: Work, session: Session) -> None:
        """Has the case at work go on with what a session holds."""
        work.restored, self.mode = True, session.mode
        known = {t.name: t for t in work.case.plan}
        holds_alerts, holds_pose = work.chain.find(HoldsAlerts), work.chain.find(HoldsPose)
        if holds_alerts is not None:
            work.plan = tuple(name for name in session.plan if name in known)
            plan, set_plan = [known[name] for name in work.plan], work.handler("plan.set")
            work.order(lambda: set_plan(plan))
            work.order(lambda: holds_alerts.restore(session.alerts))
        if holds_pose is not None and session.accepted is not None:
            work.accepted = session.accepted
            T_camera_ct = np.array(session.accepted.T_camera_ct).reshape(4, 4)
            work.order(lambda: holds_pose.restore_acceptance(T_camera_ct))

    def tend(self, work: Work | None) -> None:
        """Keeps the session where alerts or the accepted pose have changed."""
        now = time.monotonic()
        if work is not None and now - self._pose_kept_at > EVERY.pose_s:
            self._pose_kept_at = now
            work.follow_accepted()
        self.keep(work)

    def keep(self, work: Work | None) -> None:
        """Writes the session, unless nothing has changed since it was written."""
        if work is None:
            return
        session = Session(
            launch=str(self._launch.path),
            case_name=work.case_name,
            case=work.case.id,
            mode=self.mode,
            plan=work.plan,
            confirmed=work.confirmed,
            accepted=work.accepted,
            alerts=work.loop.standing.alerts[:MOST_ALERTS],
            written=time.time_ns(),
        )
        with self._keeping:
            if self._over or (self._kept is not None and _says_the_same(self._kept, session)):
                return
            try:
                self._file.write(session)
            except SessionError as error:
                self.fault, self._kept = str(error), None
            else:
                self.fault, self._kept = "", session

    def end(self) -> None:
        """The operation is over: a next start has nothing to go on with."""
        with self._keeping:
            self._over = True
            try:
                self._file.remove()
            except SessionError as error:
                log.warning("%s", error)


def _says_the_same(before: Session, now: Session) -> bool:
    """Whether a session that was kept need not be kept again."""
    old = now.written - before.written > EVERY.unchanged_s * 1e9
    return not old and now == before.model_copy(update={"written": now.written})
