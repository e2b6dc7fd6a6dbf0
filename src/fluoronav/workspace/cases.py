"""The case store as the workspace sees it: which cases there are, and what state each is in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from fluoronav.durable import locked
from fluoronav.planning.plan.file import PlanError
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.revisions import RevisionError, Revisions
from fluoronav.workspace.errors import Unknown

State = Literal["arrived", "segmented", "planned", "approved"]

# A name that stays inside the store: no separators, and no leading dot.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
CACHE = ".cache"  # in a case's folder; its content can be made again


@dataclass(frozen=True)
class CaseStore:
    """The folder of all cases.

    Attributes
    ----------
    root : Path
    """

    root: Path

    def names(self) -> list[str]:
        """Names of all cases; a case is a folder with a ``case.yaml``."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if _NAME.fullmatch(p.name) and (p / "case.yaml").is_file())

    def folder(self, name: str) -> Path:
        """The folder of a case.

        Raises
        ------
        Unknown
            There is no such case, or the name leads out of the store.
        """
        folder = self.root / name if _NAME.fullmatch(name) else None
        if folder is None or folder.is_symlink() or not (folder / "case.yaml").is_file():
            raise Unknown(f"there is no case {name[:64]!r} in the case store")
        return folder


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Held by whoever writes the files of a case that are made of others: worker processes and the server."""
    with locked(folder / CACHE):
        yield


def summary(folder: Path) -> dict[str, Any]:
    """A case in the worklist: its state, its newest revision and its plan."""
    out: dict[str, Any] = {"name": folder.name, "made": _time_of(folder / "case.yaml"), "plan": None, "faults": []}
    revision = plan = None
    try:
        revision = Revisions(folder).newest()
    except RevisionError as error:
        out["faults"].append(str(error).replace(f"{folder}/", ""))
    try:
        plan = PlanRevisions(folder).newest()
    except PlanError as error:
        out["faults"].append(str(error).replace(f"{folder}/", ""))
    structures = revision.structures if revision else ()
    out |= {
        "revision": revision.number if revision else 0,
        "structures": len(structures),
        "approved": sum(s.state == "approved" for s in structures),
    }
    if plan is not None:
        out["plan"] = {"revision": plan.revision, "state": plan.state}
    out["state"] = _state(revision is not None, plan.state if plan else None)
    return out


def _state(is_segmented: bool, plan: str | None) -> State:
    if plan == "approved":
        return "approved"
    if plan is not None:
        return "planned"
    return "segmented" if is_segmented else "arrived"


def _time_of(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")
