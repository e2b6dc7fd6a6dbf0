"""What other programs see of a case's newest revision: ``labels.nii.gz``, and its structures in ``case.yaml``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fluoronav.case import CaseError
from fluoronav.case.file import CaseFile, read_case_file
from fluoronav.durable import written
from fluoronav.planning.anatomy import by_name
from fluoronav.planning.revisions import Revision, Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.validation import first_error
from fluoronav.workspace.cases import one_at_a_time
from fluoronav.workspace.colours import colour_of

log = logging.getLogger("fluoronav")
LABELS = "labels.nii.gz"


def publish(folder: Path) -> None:
    """Brings the case's own files up to the newest revision; after a crash they may be older.

    Raises
    ------
    OSError
    """
    if not Revisions(folder).numbers():
        return
    with one_at_a_time(folder):
        _publish(folder)


def _publish(folder: Path) -> None:
    revisions = Revisions(folder)
    newest = revisions.newest()
    if newest is None:
        return
    content = revisions.labels_path(newest.number).read_bytes()
    target = folder / LABELS
    if not target.exists() or target.read_bytes() != content:
        written(target, content)
    _publish_structures(folder / "case.yaml", newest)


def _publish_structures(path: Path, newest: Revision) -> None:
    """Names the label map and its structures in ``case.yaml``; everything else there stays."""
    try:
        file = read_case_file(path)
    except CaseError as error:
        log.warning("the structures of revision %d are not named there: %s", newest.number, error)
        return
    wanted = {s.label: s.name for s in newest.structures}
    if str(file.labels) == LABELS and {s.label: s.name for s in file.structures} == wanted:
        return
    if not newest.structures and file.labels is None:
        return
    text = path.read_text(encoding="utf-8")
    content = _content(yaml.safe_load(text), file, newest.structures)
    try:
        CaseFile.model_validate({k: v for k, v in content.items() if k != "tools"})
    except ValidationError as error:
        # The revision is kept all the same: the file is for the stream, and a person may have written it.
        log.warning("%s: is left as it is, since the new structures do not fit it (%s)", path, first_error(error))
        return
    head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    body = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    written(path, f"{head}{body}".encode())


def _content(old: dict[str, Any], file: CaseFile, structures: tuple[SegmentedStructure, ...]) -> dict[str, Any]:
    """The case file's content with other structures; margins and colours of those that stay are kept."""
    known = {s.name: s.model_dump(mode="json", exclude_none=True) for s in file.structures}
    names = [s.name for s in structures]
    content = {**old, "labels": LABELS}
    content["structures"] = [
        {**known.get(s.name, {"name": s.name, "color": colour_of(s.label)}), "label": s.label} for s in structures
    ]
    before = set(file.rigid.structures) if file.rigid else set()
    rigid = before & set(names)
    # Vertebrae move as one body, unless a person has chosen among them.
    if not rigid or before >= set(_vertebrae(list(known))):
        rigid |= set(_vertebrae(names))
    content.pop("rigid", None)
    if rigid:
        content["rigid"] = {"structures": [n for n in names if n in rigid]}
    objects = []
    for one in old.get("objects", []):
        left = [n for n in one.get("structures", []) if n in names]
        if left or "volume" in one:
            objects.append({**one, **({"structures": left} if "structures" in one else {})})
    if "objects" in content:
        content["objects"] = objects
    return content


def _vertebrae(names: list[str]) -> list[str]:
    known = by_name()
    return [n for n in names if n in known and known[n].kind == "vertebra"]
