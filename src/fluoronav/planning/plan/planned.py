"""A plan with all that an export takes from its case: CT, labels, who approved which structure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import SimpleITK as sitk

from fluoronav.case.file import CaseFile, StructureEntry, read_case_file
from fluoronav.case.hashes import volume_hash
from fluoronav.case.intensity import to_hounsfield
from fluoronav.case.volume import Volume, read_volume
from fluoronav.planning.anatomy import Kind, by_name, level_of, meant
from fluoronav.planning.plan import schema
from fluoronav.planning.plan.file import PlanError, read_plan
from fluoronav.planning.revisions import Revisions
from fluoronav.planning.segmentation.engine import State

_PLAN, _CASE = "plan.yaml", "case.yaml"


@dataclass(frozen=True)
class Planned:
    """A plan and its case, as they are on the disk.

    Attributes
    ----------
    path : Path
        The plan's file.
    digest : str
        SHA-256 of that file.
    plan : Plan
    case_path : Path
        The case file.
    case : CaseFile
    states : dict of str to State
        What a person has said of each structure, by name; a structure that is not in it is a draft.
    """

    path: Path
    digest: str
    plan: schema.Plan
    case_path: Path
    case: CaseFile = field(repr=False)
    states: dict[str, State] = field(repr=False)

    @cached_property
    def ct(self) -> Volume:
        """The CT in HU."""
        return self._in_hounsfield(read_volume(self.case_path.parent / self.case.ct, self.case.ct_series))

    @cached_property
    def surroundings(self) -> Volume | None:
        """The coarse CT of the whole region in HU, where the case has one."""
        name = self.case.surroundings
        return None if name is None else self._in_hounsfield(read_volume(self.case_path.parent / name))

    def _in_hounsfield(self, ct: Volume) -> Volume:
        return ct if self.case.units is None else to_hounsfield(ct, self.case.units, "units:").volume

    @cached_property
    def labels(self) -> Volume:
        """The label map that the plan was made on.

        Raises
        ------
        PlanError
            The case has none.
        """
        if self.case.labels is None:
            raise PlanError(
                f"{self.case_path}: has no label map (`labels`); segment the CT first: fluoronav plan segment"
            )
        return read_volume(self.case_path.parent / self.case.labels)

    @cached_property
    def label_image(self) -> sitk.Image:
        """The label map with whole numbers."""
        image = self.labels.image
        return sitk.Cast(image, sitk.sitkUInt16) if "float" in image.GetPixelIDTypeAsString() else image

    @property
    def structures(self) -> tuple[StructureEntry, ...]:
        """The case's structures but those that a person has rejected."""
        return tuple(s for s in self.case.structures if self.states.get(s.name) != "rejected")

    def structure(self, name: str) -> StructureEntry:
        """A structure by its name, or by a vertebral level such as "T8".

        Raises
        ------
        PlanError
            There is no such structure.
        """
        by_names = {s.name: s for s in self.structures}
        found = meant(name, by_names)
        if found is None:
            there = ", ".join(by_names) or "none"
            raise PlanError(f"{self.case_path}: has no structure {name!r}; it has {there}")
        return by_names[found]

    def check_hashes(self) -> None:
        """Refuses a plan that was made on another CT or label map than the case has now.

        Raises
        ------
        PlanError
        """
        if volume_hash(self.ct.image) != self.plan.ct_hash:
            raise PlanError(
                f"{self.path}: was made on another CT than {self.case_path} names (other voxels, or another place); "
                "plan on this CT, or name the case of the plan's CT"
            )
        if self.plan.labels_hash is not None and volume_hash(self.labels.image) != self.plan.labels_hash:
            raise PlanError(
                f"{self.path}: was made on another label map than {self.case_path} names: the segmentation was edited "
                "after the plan; check the plan on it and approve it again"
            )


def plan_file(path: Path) -> Path:
    """The plan that a path means: itself, or the newest one of a case's folder."""
    return path / _PLAN if path.is_dir() else path


def case_file_of_plan(plan: Path) -> Path:
    """The case file that a plan belongs to by its place: in its folder, or above the folder ``plan`` of revisions."""
    is_revision = plan.parent.name == "plan" and not (plan.parent / _CASE).exists()
    return (plan.parent.parent if is_revision else plan.parent) / _CASE


def read_planned(path: Path, case: Path | None = None) -> Planned:
    """Reads a plan and its case file; volumes are read when they are asked for.

    Parameters
    ----------
    path : Path
        A ``plan.yaml``, a revision of it (``plan/0003.yaml``), or the folder of a case with a plan.
    case : Path, optional
        A ``case.yaml`` or its folder; that of the plan's folder by default.

    Raises
    ------
    PlanError, CaseError
    """
    path = plan_file(path)
    if not path.exists():
        raise PlanError(f"{path}: no such file; make a plan first, such as with fluoronav plan screws")
    plan = read_plan(path)
    case_path = case_file_of_plan(path) if case is None else case / _CASE if case.is_dir() else case
    file = read_case_file(case_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Planned(path, digest, plan, case_path, file, _states(case_path.parent, plan.labels_hash))


def _states(folder: Path, labels_hash: str | None) -> dict[str, State]:
    """What a person has said of each structure, in the newest revision with the label map of the plan."""
    revisions = Revisions(folder)
    for number in reversed(revisions.numbers()):
        revision = revisions.read(number)
        if revision.labels_hash == labels_hash:
            return {s.name: s.state for s in revision.structures}
    return {}


def kind_of(name: str) -> Kind:
    """The kind of a structure; "other" for names that the vocabulary does not have."""
    level = level_of(name)
    if level is not None:
        return "vertebra"
    known = by_name().get(name)
    return known.kind if known is not None else "other"


def ends(item: schema.Screw | schema.Path) -> tuple[schema.Point, schema.Point]:
    """Entry and tip of a screw, or entry and target of a path, LPS mm."""
    return item.entry_ct, item.tip_ct if isinstance(item, schema.Screw) else item.target_ct


def procedure_of(plan: schema.Plan) -> str | None:
    """What is done, where the plan tells: one that guides along screws alone is of pedicle screws."""
    guided = [i for i in plan.items if isinstance(i, schema.Screw | schema.Path)]
    if not guided or not all(isinstance(i, schema.Screw) for i in guided):
        return None
    return "Pedicle screws" if len(guided) > 1 else "Pedicle screw"
