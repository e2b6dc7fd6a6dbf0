"""A case that is open in the workspace: its CT, the users' sessions, and who listens to what happens."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.planning.anatomy import by_name, vocabulary
from fluoronav.planning.levels import is_move
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.questions import read_questions
from fluoronav.planning.revisions import Revision, Revisions
from fluoronav.site.case_trail import CaseTrail
from fluoronav.workspace.cases import summary
from fluoronav.workspace.colours import colour_of
from fluoronav.workspace.errors import OutOfStep, Refused, Unknown
from fluoronav.workspace.feedback import note_feedback
from fluoronav.workspace.grading import Grader
from fluoronav.workspace.label_maps import Unpacked, first_revision, known_labels, mapped, unpacked_labels
from fluoronav.workspace.people import folder_name
from fluoronav.workspace.published import publish
from fluoronav.workspace.saving import Resolve, Saved, Saver
from fluoronav.workspace.scan import Scan, known_scan, unpacked_scan
from fluoronav.workspace.session import Base, Session
from fluoronav.workspace.workers import Workers

_WAITING = 64  # messages for one listener; one that is slower is told all anew; chosen
SESSIONS = "sessions"


class OpenCase:
    """One case; made by :meth:`opened`.

    Parameters
    ----------
    folder : Path
    scan : Scan
    workers : Workers
    """

    def __init__(self, folder: Path, scan: Scan, workers: Workers) -> None:
        self.folder, self.name, self.scan, self.workers = folder, folder.name, scan, workers
        self.revisions, self.plans, self.trail = Revisions(folder), PlanRevisions(folder), CaseTrail(folder)
        self.saver, self.grader = Saver(folder, scan, self.base_of), Grader(scan)
        self.sessions: dict[str, Session] = {}
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.saving, self.planning = asyncio.Lock(), asyncio.Lock()
        self.listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self.used_s = time.monotonic()
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def opened(cls, folder: Path, workers: Workers) -> OpenCase:
        """Unpacks what has to be unpacked.

        Raises
        ------
        CaseError, WorkspaceError
        """
        scan = await asyncio.to_thread(known_scan, folder)
        if scan is None:
            scan = await workers.run(unpacked_scan, folder)
        if not Revisions(folder).numbers():
            await workers.run(first_revision, folder, scan)
        await asyncio.to_thread(publish, folder)
        return cls(folder, scan, workers)

    def close(self) -> None:
        """Lets go of the sessions; they go on from their journals."""
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()

    # Label maps.

    def revision(self, number: int) -> Revision:
        """A revision.

        Raises
        ------
        Unknown
        """
        if number not in self.revisions.numbers():
            raise Unknown(f"case {self.name} has no revision {number}")
        return self.revisions.read(number)

    async def labels_of(self, number: int) -> Unpacked:
        """The unpacked label map of a revision."""
        revision = await asyncio.to_thread(self.revision, number)
        known = await asyncio.to_thread(known_labels, self.folder, revision)
        return known or await self.workers.run(unpacked_labels, self.folder, number, self.scan)

    def base_of(self, number: int) -> Base:
        """The base that a revision is; 0 is an empty label map. Not for the event loop."""
        if number == 0:
            shape = self.scan.shape
            return Base(None, np.zeros(shape, np.uint16), np.zeros(shape, np.uint16), {})
        revision = self.revision(number)
        unpacked = known_labels(self.folder, revision) or self.workers.wait(
            unpacked_labels, self.folder, number, self.scan
        )
        own = mapped(unpacked.path, self.scan, own=True)
        return Base(revision, mapped(unpacked.path, self.scan), own, unpacked.counts)

    def map_of(self, number: int) -> NDArray[np.uint16]:
        """The label map (z, y, x) of a revision, read only. Not for the event loop."""
        return self.base_of(number).labels

    # Sessions. Callers hold `locks[user]`.

    async def session(self, user: str, *, revision: int | None = None, restart: bool = False) -> Session:
        """The user's working session: that which is open, that of the journal, or a new one.

        One with unsaved edits stays on its revision. One without goes on from `revision`, the newest by default.
        """
        return await asyncio.to_thread(self._take_up, user, revision, restart)

    def known_session(self, user: str) -> Session:
        """The user's open session.

        Raises
        ------
        OutOfStep
        """
        session = self.sessions.get(user)
        if session is None:
            raise OutOfStep("there is no working session: open one first")
        return session

    def _take_up(self, user: str, revision: int | None, restart: bool) -> Session:
        newest = self.revisions.newest()
        target = revision if revision is not None else (newest.number if newest else 0)
        if target:
            self.revision(target)
        session = self.sessions.get(user)
        if session is None:
            session = self._of_folder(user, target, restart)
        elif restart:
            self._start(session, user, target)
        if session.base.number != target and not session.unsaved:
            on_branch = session.base.revision is not None and session.base.revision.branch
            if revision is not None or not on_branch:
                self._start(session, user, target)
        return session

    def _of_folder(self, user: str, target: int, restart: bool) -> Session:
        """A session that is not open: that of the journal, or a new one."""
        session = Session(self.folder / SESSIONS / folder_name(user), self.scan)
        try:
            parent = None if restart else session.parent
            if parent is None:
                self._start(session, user, target)
            else:
                session.resume(self.base_of(parent))
                self._recover(session, user)
        except BaseException:
            session.close()
            raise
        self.sessions[user] = session
        return session

    def _start(self, session: Session, user: str, target: int) -> None:
        session.start(self.base_of(target))
        self.trail.add("session", user=user, revision=target, session=session.id, sequence=0)

    def _recover(self, session: Session, user: str) -> None:
        """After a crash: ends a save that was not finished, and notes edits that the trail does not have."""
        noted = max([0, *(
            int(e["sequence"]) for e in self.trail.events() if e.get("session") == session.id and "sequence" in e
        )])  # fmt: skip
        if session.sequence > noted:
            self.trail.add(
                "edit", user=user, what="found in the journal after a crash", revision=session.base.number,
                session=session.id, sequence=session.sequence, steps=session.sequence - noted,
            )  # fmt: skip
        if (revision := self.saver.recover(session)) is not None:
            self.trail.add(
                "saved", user=user, revision=revision.number, what="ended after a crash", session=session.id,
                sequence=session.sequence,
            )  # fmt: skip

    def note_edit(self, user: str, session: Session, what: str, structure: str, voxels: int) -> int:
        """The audit line of an edit; its number."""
        return self.trail.add(
            "edit", user=user, what=what, structure=structure, voxels=voxels, revision=session.base.number,
            session=session.id, sequence=session.sequence,
        )  # fmt: skip

    async def save(self, user: str, session: Session, note: str, resolve: Resolve | None, branch: str | None) -> Saved:
        """Saves a session as a revision, with its audit line and feedback."""

        def work() -> Saved:
            saved = self.saver.save(session, user, note=note, resolve=resolve, branch=branch)
            revision = saved.revision
            self.trail.add(
                "saved", user=user, revision=revision.number, parent=revision.parent, merged=revision.merged,
                branch=revision.branch, note=note, session=session.id, sequence=session.sequence,
            )  # fmt: skip
            if not revision.branch:
                note_feedback(self.folder, revision, user, self.map_of)
            return saved

        async with self.saving:
            saved = await asyncio.to_thread(work)
        revision = saved.revision
        self.tell({"event": "revision", "number": revision.number, "author": user, "branch": revision.branch})
        return saved

    async def judge(self, user: str, number: int, labels: list[int], state: Any) -> Revision:
        """Approves or rejects structures of the newest revision: a new revision with the same voxels."""
        async with self.locks[user], self.saving:
            session = self.sessions.get(user)
            revision = await asyncio.to_thread(self._judged, user, session, number, labels, state)
        self.tell({"event": "revision", "number": revision.number, "author": user, "branch": ""})
        return revision

    def _judged(self, user: str, session: Session | None, number: int, labels: list[int], state: Any) -> Revision:
        newest = self.revisions.newest()
        if newest is None or newest.number != number:
            raise OutOfStep(
                f"the newest revision is {newest.number if newest else 0}, not {number}: look at it first",
                newest=newest.number if newest else 0,
            )
        known = {s.label: s for s in newest.structures}
        if missing := [k for k in labels if k not in known]:
            raise Unknown(f"revision {number} has no structure with label {missing[0]}")
        if session is not None and session.unsaved:
            at, now = session.changes()
            edited = set(now.tolist()) | set(session.base.labels.reshape(-1)[at].tolist())
            if both := sorted(edited & set(labels)):
                raise Refused(
                    f"your edits of {known[both[0]].name} are not saved: save first, since a revision is judged"
                )
        at_time = "" if state == "draft" else datetime.now().astimezone().isoformat(timespec="seconds")
        judge = "" if state == "draft" else user
        judged = tuple(
            replace(s, state=state, judged_by=judge, judged_at=at_time) if s.label in labels else s
            for s in newest.structures
        )
        names = [known[k].name for k in labels]
        revision = self.revisions.restated(number, judged, user, f"{state}: {', '.join(names)}"[:400])
        self.trail.add("judged", user=user, state=state, structures=names, revision=revision.number)
        publish(self.folder)
        note_feedback(self.folder, revision, user, self.map_of)
        if session is not None and session.base.number == number and not session.unsaved:
            session.rebase(self.base_of(revision.number), keep_steps=True)
        return revision

    # What others are told.

    def tell(self, message: dict[str, Any]) -> None:
        """Says something to everybody who has the case open; from any thread."""
        self._loop.call_soon_threadsafe(self._tell, message)

    def _tell(self, message: dict[str, Any]) -> None:
        for queue in self.listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(message)

    def listener(self) -> asyncio.Queue[dict[str, Any]]:
        """A queue of what happens from now on; the caller takes it out of `listeners` again."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self.listeners.add(queue)
        return queue

    def editors(self) -> list[dict[str, Any]]:
        """Who has a working session open."""
        return [
            {"user": user, "parent": s.base.number, "unsaved": s.unsaved} for user, s in sorted(self.sessions.items())
        ]

    def head(self, user: str, jobs: list[dict[str, Any]]) -> dict[str, Any]:
        """What the page is told when it opens the case. Not for the event loop."""
        newest, plan = self.revisions.newest(), self.plans.newest()
        session = self.sessions.get(user)
        about = summary(self.folder)
        return {
            "name": self.name, "state": about["state"], "ct": self.scan.head(), "warnings": self.scan.warnings,
            "faults": about["faults"], "newest": newest.number if newest else 0,
            "revisions": [self.revision_head(self.revisions.read(n)) for n in self.revisions.numbers()],
            "structures": self.structures(newest) if newest else [],
            "plan": plan.model_dump(mode="json") if plan else None,
            "session": session.state() if session else None, "editors": self.editors(), "jobs": jobs,
            "questions": read_questions(self.folder)["questions"], "can_move_back": bool(newest and is_move(newest)),
        }  # fmt: skip

    def revision_head(self, revision: Revision) -> dict[str, Any]:
        """A revision in the list of all."""
        return {
            "number": revision.number, "parent": revision.parent, "branch": revision.branch, "merged": revision.merged,
            "author": revision.author, "made": revision.made, "note": revision.note,
            "labels_hash": revision.labels_hash,
        }  # fmt: skip

    def structures(self, revision: Revision) -> list[dict[str, Any]]:
        """The structures of a revision."""
        return [
            {
                "name": s.name, "label": s.label, "kind": kind_of(s.name, s.label), "engine": s.engine,
                "confidence": s.confidence, "voxels": s.voxels, "volume_cm3": s.volume_cm3, "state": s.state,
                "judged_by": s.judged_by, "judged_at": s.judged_at, "colour": colour_of(s.label),
            }
            for s in revision.structures
        ]  # fmt: skip


def kind_of(name: str, label: int) -> str:
    """Kind of a structure in the vocabulary's words; "other" for what has no entry."""
    known = by_name().get(name) or vocabulary().get(label)
    return known.kind if known else "other"
