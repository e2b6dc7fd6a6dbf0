"""The plan as a case for the stream: a folder that `fluoronav run` and `demo` load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml

from fluoronav.case.file import CaseFile, StructureEntry
from fluoronav.case.instruments import Instruments
from fluoronav.durable import made_folder, moved, sync_file, written
from fluoronav.planning.anatomy import LEVELS
from fluoronav.planning.plan.file import PlanError
from fluoronav.planning.plan.planned import Planned, ends, kind_of, procedure_of
from fluoronav.planning.plan.schema import Flag, Screw, View
from fluoronav.planning.plan.schema import Path as PlannedPath

_CT, _LABELS, _AROUND, _PLAN, _CASE = "ct.nrrd", "labels.nrrd", "surroundings.nrrd", "plan.yaml", "case.yaml"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Distances at which the approach to a structure is an alarm, by its kind; as in the embedded case."""

    nerve_caution_mm: float = 2.5  # chosen: with the guidance's error the cord is then 1 mm away
    nerve_danger_mm: float = 1.0
    vessel_caution_mm: float = 6.0
    vessel_danger_mm: float = 3.0


THRESHOLDS = Thresholds()


def write_stream_case(
    planned: Planned, folder: Path, say: Callable[[str], object], instruments: Instruments | None = None
) -> dict[str, Any]:
    """Writes the case; its ``case.yaml`` comes last.

    The CT is written without its DICOM header, so that the case names nobody.

    Parameters
    ----------
    planned : Planned
    folder : Path
        New or empty.
    say : callable
        Takes a text for each step.
    instruments : Instruments, optional
        Of the operating room, in place of the tools and the tracker that the planned case names.

    Returns
    -------
    dict
        What was written: trajectories, tools, tracker, structures with alarms and without, warnings.

    Raises
    ------
    PlanError
        The plan is not approved, is of another CT or label map, or holds no trajectory.
    OSError
    """
    check_approved(planned)
    say("checking that the plan is of this CT and these labels")
    planned.check_hashes()
    content, report = _content(planned, instruments)
    try:
        CaseFile.model_validate(content)
    except ValueError as error:
        raise PlanError(f"{planned.path}: makes no case that the stream takes: {error}") from error
    if folder.exists() and any(folder.iterdir()):
        raise PlanError(f"{folder}: is not empty; name a new folder, so that no file of another case stays in it")
    made_folder(folder)
    labels = planned.labels if planned.case.labels is not None else None
    for name, volume in ((_CT, planned.ct), (_LABELS, labels), (_AROUND, planned.surroundings)):
        if volume is not None:
            say(f"writing {name}")
            _write_volume(volume.image, folder / name)
    written(folder / _PLAN, planned.path.read_bytes())
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    head = f"# Written by `fluoronav plan export` from revision {planned.plan.revision} of the plan; do not edit.\n"
    written(folder / _CASE, f"{head}# mm, degrees, DICOM LPS.\n{text}".encode())
    return {"file": str(folder / _CASE), **report}


def check_approved(planned: Planned) -> None:
    """Refuses a plan that is not approved, or not the revision that was.

    Raises
    ------
    PlanError
    """
    plan, path = planned.plan, planned.path
    if plan.state != "approved":
        raise PlanError(f"{path}: the plan is {plan.state}, not approved; approve it in the workspace, then export it")
    asked = [i.text for i in plan.items if isinstance(i, Flag) and not i.acknowledged_by]
    if asked:
        raise PlanError(f"{path}: nobody has acknowledged the flag {asked[0]!r}; answer it in the workspace")
    revision = path.parent / "plan" / f"{plan.revision:04d}.yaml"
    if path.name == _PLAN and revision.exists() and revision.read_bytes() != path.read_bytes():
        raise PlanError(f"{path}: differs from the revision that was approved ({revision}); restore it from there")


def _content(planned: Planned, instruments: Instruments | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of ``case.yaml``, and what to report about it."""
    plan, source = planned.plan, planned.case
    trajectories = _trajectories(planned)
    if not trajectories:
        raise PlanError(f"{planned.path}: has neither a screw nor a path; there is nothing to guide along")
    structures, report = _structures(planned)
    content: dict[str, Any] = {"name": source.name}
    procedure = source.procedure or procedure_of(plan)
    if procedure is not None:
        content["procedure"] = procedure
    content["ct"] = _CT
    if source.labels is not None:
        content["labels"] = _LABELS
    if source.surroundings is not None:
        content["surroundings"] = _AROUND
    content["structures"] = structures
    names = {s["name"] for s in structures}
    if source.rigid is not None:
        rigid = [s for s in source.rigid.structures if s in names]
        if not rigid:
            raise PlanError(f"{planned.case_path}: all bones of `rigid` were rejected; the CT could not be registered")
        content["rigid"] = {"structures": rigid}
    if source.no_go:
        content["no_go"] = _dumped(source)["no_go"]
    content |= _instruments(planned, instruments, report)
    content["plan"] = trajectories
    content["prior"] = _prior(planned)
    content["approved_plan"] = {
        "file": _PLAN, "hash": planned.digest, "revision": plan.revision,
        "approved_by": plan.approved_by or plan.author or "unknown",
    }  # fmt: skip
    if source.objects:
        report["warnings"].append(
            "objects with a pose of their own are not exported: " + ", ".join(o.name for o in source.objects)
        )
    return content, {"trajectories": [t["name"] for t in trajectories], **report}


def _instruments(planned: Planned, instruments: Instruments | None, report: dict[str, Any]) -> dict[str, Any]:
    """`tools` and `tracker`: each of the room's where it is given, else of the planned case."""
    own = planned.case.tracker
    whole = _dumped(planned.case) | (_dumped(instruments) if instruments is not None else {})
    out = {key: whole[key] for key in ("tools", "tracker") if key in whole}
    if own is not None and own.T_ct_reference is not None and out["tracker"]["reference"] == own.reference:
        out["tracker"]["T_ct_reference"] = own.T_ct_reference  # the marker's place is of the patient
    report["tools"] = [t["id"] for t in out.get("tools", [])]
    report["tracker"] = out.get("tracker", {}).get("reference")
    if not report["tools"]:
        report["warnings"].append(
            "no tools are named, so no tip will be guided; name the room's with --instruments, or in the site file"
        )
    elif report["tracker"] is None:
        report["warnings"].append("no tracker is named: tips are guided where the picture alone shows them")
    return out


def _dumped(content: CaseFile | Instruments) -> dict[str, Any]:
    return content.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _trajectories(planned: Planned) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for item in planned.plan.items:
        if not isinstance(item, Screw | PlannedPath):
            continue
        name = item.id if isinstance(item, Screw) else item.name
        if name in {t["name"] for t in out}:
            name = item.id
        entry, target = ends(item)
        out.append(
            {"name": name, "entry_ct": list(entry), "target_ct": list(target), "radius_mm": item.diameter_mm / 2}
        )
    return out


def _structures(planned: Planned) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Structures with their thresholds; only what a person has approved gets any."""
    out, armed, silent = [], [], []
    near = _near_the_plan(planned)
    for s in planned.structures:
        limits = _thresholds(s) if planned.states.get(s.name) == "approved" else None
        entry: dict[str, Any] = {"name": s.name, "label": s.label, "color": s.color}
        if limits is not None:
            entry["caution_mm"], entry["danger_mm"] = limits
            armed.append(s.name)
        elif _thresholds(s) is not None:
            silent.append(s.name)
        if limits is None and near and s.name not in near:
            entry["drawn"] = False
        out.append(entry)
    warnings = []
    if silent:
        warnings.append("no alarm, since nobody has approved them: " + ", ".join(silent))
    if not armed and not planned.case.no_go:
        warnings.append("no structure raises an alarm; approve vessels and nerves in the workspace")
    return out, {"alarms": armed, "unapproved": silent, "warnings": warnings}


def _near_the_plan(planned: Planned) -> set[str]:
    """The vertebrae of the planned screws and their neighbours; empty, for all, where there are no screws."""
    levels = {i.level for i in planned.plan.items if isinstance(i, Screw)}
    at = [LEVELS.index(level) for level in levels if level in LEVELS]
    return {f"vertebrae_{level}" for k in at for level in (*LEVELS[max(k - 1, 0) : k + 2], *levels)}


def _thresholds(structure: StructureEntry) -> tuple[float, float] | None:
    """Caution and danger, mm: the case's own, else those of its kind; None for what raises no alarm."""
    if structure.caution_mm is not None and structure.danger_mm is not None:
        return structure.caution_mm, structure.danger_mm
    kind = kind_of(structure.name)
    if kind == "nerve":
        return THRESHOLDS.nerve_caution_mm, THRESHOLDS.nerve_danger_mm
    if kind == "vessel":
        return THRESHOLDS.vessel_caution_mm, THRESHOLDS.vessel_danger_mm
    return None


def _prior(planned: Planned) -> dict[str, Any]:
    """The case's prior pose, turned to the plan's view with the smallest error, about the item that it is for."""
    prior = planned.case.prior.model_dump(mode="json")
    views = [i for i in planned.plan.items if isinstance(i, View)]
    if not views:
        return prior
    best = min(views, key=lambda v: v.error_mm)
    prior |= {"orbital_deg": best.orbital_deg, "angular_deg": best.angular_deg}
    item = next((i for i in planned.plan.items if i.id == best.item and isinstance(i, Screw | PlannedPath)), None)
    if item is not None:
        prior["isocentre_ct"] = np.round(np.mean(ends(item), axis=0), 1).tolist()
    return prior


def _write_volume(image: sitk.Image, path: Path) -> None:
    """A volume as NRRD without metadata: as a whole, or not at all."""
    bare = sitk.Image(image)
    for key in bare.GetMetaDataKeys():
        bare.EraseMetaData(key)
    part = path.with_name(f".{path.name}")
    sitk.WriteImage(bare, str(part), useCompression=True)
    sync_file(part)
    moved(part, path)
