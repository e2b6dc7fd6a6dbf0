"""The case that the demo runs: with the simulated room's instruments where it names none of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from fluoronav.case.file import CaseFile, read_case_file
from fluoronav.durable import written
from fluoronav.lab.simulation.tracker import marker_on_patient
from fluoronav.paths import embedded_case

_CASE = "case.yaml"


def with_instruments(case: Path, out: Path, say: Callable[[str], object]) -> Path:
    """A case whose tool the simulated tracker can report: the same, or a copy of its case file with what it lacks.

    A plan is made without instruments, and where the marker sits on the patient is known in the room alone. In a
    simulation both are the simulation's. A case without a plan is left as it is: nothing is driven in it.

    Parameters
    ----------
    case : Path
        A ``case.yaml`` or its folder.
    out : Path
        The copy goes into ``case/`` in it; the volumes stay where they are.
    say : callable
        Takes a text about what was added.

    Returns
    -------
    Path
        The case to run.

    Raises
    ------
    CaseError
    """
    path = case / _CASE if case.is_dir() else case
    file = read_case_file(path)
    located = file.tracker is not None and file.tracker.T_ct_reference is not None
    if not file.plan or (file.tools and located):
        return case
    ours = read_case_file(embedded_case())
    assert ours.tracker is not None
    tools, tracker = file.tools or ours.tools, file.tracker or ours.tracker
    content = _with_whole_paths(file, path.resolve().parent)
    content["tools"] = [t.model_dump(mode="json", exclude_defaults=True) for t in tools]
    content["tracker"] = {"reference": tracker.reference, "T_ct_reference": marker_on_patient(file).tolist()}
    copy = out.resolve() / "case" / _CASE
    head = "# Written by `fluoronav demo`: for the simulation alone, whose tracker's marker lies at T_ct_reference.\n"
    written(copy, (head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)).encode())
    for what, named, ids in (
        ("tools", file.tools, ", ".join(t.id for t in tools)), ("tracker", file.tracker, tracker.reference)
    ):  # fmt: skip
        if not named:
            say(f"the case names no {what}; the simulation's: {ids}")
    say(f"the tracker's marker is where the simulation puts it ({copy})")
    return copy


def _with_whole_paths(file: CaseFile, folder: Path) -> dict[str, Any]:
    """The content of a case file, readable from any folder."""
    content = file.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for holder, key in (
        *((content, k) for k in ("ct", "labels", "surroundings")),
        (content.get("approved_plan", {}), "file"),
        *((o, "volume") for o in content.get("objects", [])),
    ):
        if key in holder:
            holder[key] = str(folder / holder[key])
    return content
