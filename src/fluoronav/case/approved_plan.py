"""Whether the approved plan that a case names is approved, unchanged, and of this CT and these labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import Field

from fluoronav.case.hashes import volume_hash
from fluoronav.case.schema import CaseError, Name, Strict
from fluoronav.case.volume import Volume
from fluoronav.paths import regular_file

_MOST_YAML_BYTES = 4_000_000  # chosen: a plan is some pages
_SAME_MM = 1e-3  # points of the case and of the plan; chosen: finer than any is written
# Fields of a plan's items that hold the start, the end and the diameter of a path.
_PATHS = {"screw": ("entry_ct", "tip_ct"), "path": ("entry_ct", "target_ct")}


class ApprovedPlan(Strict):
    """The approved plan that the trajectories of a case come from; `plan export --to case` writes it."""

    file: Path = Field(description="the plan, relative to the case file")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the plan's file")
    revision: int = Field(ge=1)
    approved_by: Name


def check_approved_plan(
    named: ApprovedPlan, case: Path, ct: Volume, labels: Volume | None, trajectories: Iterable[Any]
) -> None:
    """Refuses a plan that guidance must not follow.

    Parameters
    ----------
    named : ApprovedPlan
    case : Path
        The case file.
    ct : Volume
        HU.
    labels : Volume or None
    trajectories : iterable of Trajectory
        Of the case.

    Raises
    ------
    CaseError
        The plan is not approved, was changed, is of another CT or label map, or does not hold a trajectory of the case.
    """
    path = case.parent / named.file
    content, digest = _read(path)
    state = content.get("state")
    if state != "approved":
        raise CaseError(f"{path}: the plan is {state}, not approved; approve it, and export the case again")
    if digest != named.hash:
        raise CaseError(
            f"{path}: the plan was changed after {case.name} was written (another SHA-256); export the case again"
        )
    if content.get("revision") != named.revision or content.get("approved_by", "") not in ("", named.approved_by):
        raise CaseError(
            f"{path}: is revision {content.get('revision')}, approved by {content.get('approved_by')!r}; {case.name} "
            f"names revision {named.revision}, approved by {named.approved_by!r}; export the case again"
        )
    for what, volume, key in (("CT", ct, "ct_hash"), ("label map", labels, "labels_hash")):
        planned = content.get(key)
        if key == "labels_hash" and planned is None:
            continue
        if volume is None or volume_hash(volume.image) != planned:
            raise CaseError(f"{path}: the plan was made on another {what} than the case's; export the case again")
    _check_trajectories(content, path, case, trajectories)


def planned_views(named: ApprovedPlan, case: Path) -> list[dict[str, Any]]:
    """The C-arm views of the approved plan.

    Returns
    -------
    list of dict
        ``item`` (name of the screw or path), ``orbital_deg``, ``angular_deg``, and ``bound_mm``: the bound of the tip's
        error that the guidance will state there, 95 %; None where the plan does not say it.

    Raises
    ------
    CaseError
        The plan cannot be read.
    """
    content, _ = _read(case.parent / named.file)
    keys = ("item", "orbital_deg", "angular_deg", "bound_mm")
    views = [i for i in content.get("items") or [] if isinstance(i, dict) and i.get("kind") == "view"]
    return [{key: view.get(key) for key in keys} for view in views]


def _read(path: Path) -> tuple[dict[str, Any], str]:
    try:
        if regular_file(path).stat().st_size > _MOST_YAML_BYTES:
            raise CaseError(f"{path}: is larger than {_MOST_YAML_BYTES} bytes; this is no plan")
        data = path.read_bytes()
        content = yaml.safe_load(data.decode())
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise CaseError(f"{path}: cannot be read as a plan: {error}") from error
    if not isinstance(content, dict):
        raise CaseError(f"{path}: cannot be read as a plan: it holds no mapping of keys")
    return content, hashlib.sha256(data).hexdigest()


def _check_trajectories(content: dict[str, Any], path: Path, case: Path, trajectories: Iterable[Any]) -> None:
    planned = []
    for item in content.get("items") or []:
        ends = _PATHS.get(str(item.get("kind"))) if isinstance(item, dict) else None
        if ends is not None:
            planned.append([*item[ends[0]], *item[ends[1]], item["diameter_mm"] / 2])
    for t in trajectories:
        own = np.array([*t.entry_ct, *t.target_ct, t.radius_mm], float)
        if not any(np.abs(own - p).max() <= _SAME_MM for p in planned):
            raise CaseError(f"{case}: plan: {t.name} is not in the approved plan {path.name}; export the case again")
