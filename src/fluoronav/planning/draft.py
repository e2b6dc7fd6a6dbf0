"""A draft case: what `plan segment` writes, and adds to.

A folder with ``case.yaml``, ``labels.nii.gz`` (the newest label map), ``questions.json``, and ``segmentation/`` with
one immutable revision for each run.
"""

from __future__ import annotations

import getpass
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml
from numpy.typing import NDArray

from fluoronav.case.file import CaseFile, read_case_file
from fluoronav.case.label_checks import check_labels
from fluoronav.case.schema import CaseError
from fluoronav.case.volume import Volume
from fluoronav.durable import made_folder, moved, sync_file, written
from fluoronav.planning.anatomy import OWN_LABELS, by_name, vocabulary
from fluoronav.planning.plan.hashes import volume_hash
from fluoronav.planning.questions import write_questions
from fluoronav.planning.revisions import Revision, Revisions
from fluoronav.planning.segmentation.engine import Segmentation, SegmentationError, SegmentedStructure

CASE, LABELS = "case.yaml", "labels.nii.gz"
# Engines that draw everything that they can in one run; of the others each run adds to the ones before.
_WHOLE = {"atlas", "network"}
_ISOCENTRE_MM = 620.0  # from the source; chosen: as for the embedded case, a person corrects it at the C-arm
_COLOURS = {
    "vertebra": ("#f4d03f", "#5dade2", "#7fb3d5"),
    "rib": ("#d5c9b0", "#c7b89a"),
    "bone": ("#e8dcc0",),
    "cartilage": ("#a9cce3",),
    "nerve": ("#58d68d",),
    "vessel": ("#ec7063", "#af7ac5"),
    "organ": ("#d98880", "#c39bd3", "#a04000", "#e59866"),
    "muscle": ("#b03a2e",),
    "lesion": ("#ff00ff",),
    "implant": ("#a6acaf",),
    "other": ("#ffffff",),
}


def write_draft(
    found: Segmentation, ct: Volume, folder: Path, *, series: str | None = None, copy_ct: bool = False
) -> Revision:
    """Writes a draft case, or adds a revision to the case that is there.

    What a person has drawn or approved stays. A structure of the same name is replaced; a run of the atlas or of a
    network replaces all that the same engine has drawn before.

    Parameters
    ----------
    found : Segmentation
    ct : Volume
        What was segmented.
    folder : Path
        The case.
    series : str, optional
        SeriesInstanceUID, where the CT's folder holds several.
    copy_ct : bool
        Copy the CT into a new case; else the case names it where it is.

    Raises
    ------
    SegmentationError
        The case is of another CT, or the labels do not lie in it.
    """
    revisions = Revisions(folder)
    ct_hash = volume_hash(ct.image)
    before = revisions.newest()
    if before is not None:
        if before.ct_hash != ct_hash:
            raise SegmentationError(
                f"{folder}: is the case of another CT; its segmentation was made on a CT with other voxels or another "
                "place. Choose another --out"
            )
        earlier = sitk.ReadImage(str(revisions.labels_path(before.number)))
        found = _merged(found, earlier, before.structures)
    elif (folder / CASE).exists():
        raise SegmentationError(f"{folder}: holds a case without revisions of its segmentation; choose another --out")
    if not found.structures:
        raise SegmentationError("nothing was found: the label map is empty")
    # Only now is the disk touched.
    content = _case_content(found, ct, folder, series, copy_ct)
    _check(found, ct, content, folder)
    made_folder(folder)
    if copy_ct and before is None:
        _copy_ct(ct.path, folder)
    revision = revisions.add(
        found.labels, found.structures, author=f"{found.engine} ({getpass.getuser()})", ct_hash=ct_hash,
        parent=before.number if before else 0, note="; ".join(found.warnings),
    )  # fmt: skip
    _link_newest(revisions, revision, folder)
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    written(folder / CASE, f"# A draft by `fluoronav plan segment`; mm, degrees, DICOM LPS.\n{text}".encode())
    asked = [asdict(q) for q in found.questions]
    write_questions(folder, {"revision": revision.number, "questions": asked, "warnings": list(found.warnings)})
    return revision


def _merged(found: Segmentation, earlier: sitk.Image, structures: Sequence[SegmentedStructure]) -> Segmentation:
    """The new structures on those that stay of the revision before."""
    old, new = sitk.GetArrayViewFromImage(earlier), sitk.GetArrayFromImage(found.labels).astype(np.uint16)
    engines = {s.engine for s in found.structures}
    names = {s.name for s in found.structures}
    firm = [s for s in structures if s.state == "approved" or s.engine == "person"]
    again = engines & _WHOLE
    soft = [s for s in structures if s not in firm and s.engine not in again and s.name not in names]
    out = np.zeros(old.shape, np.uint16)
    kept: dict[str, SegmentedStructure] = {}
    for s in soft:
        out[old == s.label] = s.label
        kept[s.name] = s
    taken = {s.label for s in (*firm, *soft)}
    warnings = list(found.warnings)
    for s in found.structures:
        if s.name in {f.name for f in firm}:
            warnings.append(f"{s.name}: a person has approved or drawn it; it stays as it is")
            continue
        label = s.label if s.label not in taken else _free_label(taken)
        taken.add(label)
        out[new == s.label] = label
        kept[s.name] = replace(s, label=label)
    for s in firm:
        out[old == s.label] = s.label
        kept[s.name] = s
    counts = _counts(out)
    voxel_cm3 = float(np.prod(earlier.GetSpacing())) / 1000
    recounted = tuple(
        replace(s, voxels=int(counts[s.label]), volume_cm3=round(float(counts[s.label]) * voxel_cm3, 3))
        for s in kept.values()
        if counts[s.label]
    )
    image = sitk.GetImageFromArray(out if out.max() > 255 else out.astype(np.uint8))
    image.CopyInformation(earlier)
    return replace(found, labels=image, structures=recounted, warnings=tuple(warnings))


def _counts(voxels: NDArray[np.uint16]) -> NDArray[np.int64]:
    out = np.zeros(65536, np.int64)
    for plane in voxels:
        out += np.bincount(plane.ravel(), minlength=65536)
    return out


def _free_label(taken: set[int]) -> int:
    free = next((k for k in OWN_LABELS if k not in taken), None)
    if free is None:
        raise SegmentationError(
            f"the case has no free label value for another structure ({OWN_LABELS[0]} to {OWN_LABELS[-1]})"
        )
    return free


def _case_content(found: Segmentation, ct: Volume, folder: Path, series: str | None, copy_ct: bool) -> dict[str, Any]:
    """The content of ``case.yaml``: what is there already stays, structures are those of the new revision."""
    path = folder / CASE
    if path.exists():
        file = read_case_file(path)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        known = {s.name: s.model_dump(mode="json", exclude_none=True) for s in file.structures}
    else:
        content, known = _new_content(found, ct, folder, series, copy_ct), {}
    content["structures"] = [
        {**known.get(s.name, {"name": s.name, "color": _colour(s)}), "label": s.label}
        for s in sorted(found.structures, key=lambda s: s.label)
    ]
    bones = _rigid(found.structures)
    if bones:
        content["rigid"] = {"structures": bones}
    else:
        content.pop("rigid", None)
    return content


def _new_content(found: Segmentation, ct: Volume, folder: Path, series: str | None, copy_ct: bool) -> dict[str, Any]:
    ct_path = _copied_name(ct.path) if copy_ct else os.path.relpath(ct.path.resolve(), folder.resolve())
    content: dict[str, Any] = {"name": folder.resolve().name[:64] or "draft", "ct": str(ct_path)}
    if series is not None:
        content["ct_series"] = series
    content["labels"] = LABELS
    content["structures"] = []
    content["prior"] = {
        "isocentre_ct": _middle(found),
        "source_to_isocentre_mm": _ISOCENTRE_MM,
    }
    return content


def _rigid(structures: Sequence[SegmentedStructure]) -> list[str]:
    """Bones that move as one body: the vertebrae; without any, whole bones of the draft."""
    known = by_name()
    kinds = {s.name: known[s.name].kind if s.name in known else "other" for s in structures}
    vertebrae = [name for name, kind in kinds.items() if kind == "vertebra"]
    return vertebrae or [name for name, kind in kinds.items() if kind == "bone"]


def _middle(found: Segmentation) -> list[float]:
    """Middle of the bones that are registered, else of everything, LPS mm."""
    bones = set(_rigid(found.structures))
    labels = {s.label for s in found.structures if s.name in bones or not bones}
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.ComputePerimeterOff()
    statistics.Execute(sitk.Cast(found.labels, sitk.sitkUInt16))
    points = [statistics.GetCentroid(k) for k in statistics.GetLabels() if k in labels]
    return [round(float(x), 1) for x in np.mean(points, axis=0)]


def _colour(structure: SegmentedStructure) -> str:
    known = vocabulary().get(structure.label)
    colours = _COLOURS[known.kind if known is not None and known.name == structure.name else "other"]
    return colours[structure.label % len(colours)]


def _check(found: Segmentation, ct: Volume, content: dict[str, Any], folder: Path) -> None:
    """Refuses labels that the stream would refuse."""
    try:
        file = CaseFile.model_validate(content)
        labels = Volume(found.labels, folder / LABELS)
        check_labels(ct, labels, sitk.DICOMOrient(found.labels, "LPS"), file, folder / CASE)
    except CaseError as error:
        raise SegmentationError(f"the draft does not fit its CT: {error}") from error


def _copied_name(path: Path) -> Path:
    suffixes = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    return Path("ct") if path.is_dir() else Path(f"ct{suffixes}")


def _copy_ct(path: Path, folder: Path) -> None:
    target = folder / _copied_name(path)
    if path.is_dir():
        shutil.copytree(path, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, target)
        sync_file(target)


def _link_newest(revisions: Revisions, revision: Revision, folder: Path) -> None:
    """Gives the newest label map its name in the case."""
    part = folder / f".{LABELS}.part"
    shutil.copyfile(revisions.labels_path(revision.number), part)
    sync_file(part)
    moved(part, folder / LABELS)
