"""The embedded case with an approved segmentation and a plan, to export and to simulate on."""

from __future__ import annotations

import shutil
from pathlib import Path

import SimpleITK as sitk

from fluoronav.case.file import read_case_file
from fluoronav.case.hashes import volume_hash
from fluoronav.case.volume import read_volume
from fluoronav.paths import embedded_case
from fluoronav.planning.plan.file import write_plan
from fluoronav.planning.plan.schema import Plan, Screw, View
from fluoronav.planning.revisions import Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure

MADE = "2026-01-05T10:00:00+00:00"


def screw(name: str, side: str, entry: tuple, tip: tuple, level: str = "T8") -> Screw:
    return Screw(
        id=name, origin="proposed", level=level, side=side, entry_ct=entry, tip_ct=tip, diameter_mm=5.0, length_mm=35.9,
        clearance_mm=0.5, breach_mm=0.0, grade="A",
    )  # fmt: skip


LEFT = screw("T8_left", "left", (14.4, 109.8, -158.0), (5.1, 75.1, -158.0))
RIGHT = screw("T8_right", "right", (-14.1, 106.9, -159.0), (-5.6, 75.0, -159.0))
BEST = View(id="v1", origin="proposed", item="T8_left", orbital_deg=12.0, angular_deg=-4.0, error_mm=0.8)


def planned_case(folder: Path, *items, state: str = "approved", drafts: tuple[str, ...] = (), **more) -> Path:
    """Writes the case with its plan; returns its folder. `drafts` are the structures that nobody has approved."""
    source = embedded_case()
    source = source if source.is_dir() else source.parent
    shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    file = read_case_file(folder / "case.yaml")
    ct, labels = read_volume(folder / file.ct), read_volume(folder / file.labels)
    structures = tuple(
        SegmentedStructure(s.name, s.label, "atlas", 0.9, 1, 1.0, "draft" if s.name in drafts else "approved")
        for s in file.structures
    )
    Revisions(folder).add(
        sitk.Cast(labels.image, labels.image.GetPixelID()),
        structures,
        author="test",
        ct_hash=volume_hash(ct.image),
        parent=0,
    )
    plan = Plan(
        case=file.name, revision=1, ct_hash=volume_hash(ct.image), labels_hash=volume_hash(labels.image), state=state,
        approved_by="Test^Person" if state == "approved" else "", made=MADE, items=items or (LEFT, RIGHT, BEST), **more,
    )  # fmt: skip
    write_plan(plan, folder / "plan.yaml")
    return folder
