"""The plan for 3D Slicer: markups (JSON, LPS), the structures as a segmentation, surfaces, and a scene of all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from fluoronav.durable import moved, sync_file, written
from fluoronav.planning.export.slicer_scene import SceneFile, rgb, scene_of
from fluoronav.planning.meshes.parts import Part, file_name, write_stl
from fluoronav.planning.plan.planned import Planned, ends
from fluoronav.planning.plan.schema import Flag, Measured, Screw
from fluoronav.planning.plan.schema import Path as PlannedPath

# The first version of Slicer's schema: later ones add keys that are optional, so that every Slicer 5 reads it.
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.0.json#"
)
_STRUCTURES, _SCENE = "structures.seg.nrrd", "plan.mrml"
# Slicer's word for what a person has said of a segment.
_STATUS = {"draft": "inprogress", "approved": "completed", "rejected": "flagged"}


def write_slicer(planned: Planned, parts: list[Part], folder: Path, say: Callable[[str], object]) -> dict[str, Any]:
    """Writes the files.

    Parameters
    ----------
    planned : Planned
    parts : list of Part
        Bodies of screws and simulated pieces; structures come as a segmentation.
    folder : Path
    say : callable
        Takes a text for each step.

    Returns
    -------
    dict
        Names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    say("writing the structures")
    _write_segmentation(planned, folder)
    scene = [SceneFile("Segmentation", "Structures", _STRUCTURES)]
    for stem, content in markups_of(planned).items():
        name = f"{stem}.mrk.json"
        written(folder / name, (json.dumps(content, indent=1) + "\n").encode())
        kind = "MarkupsLine" if content["markups"][0]["type"] == "Line" else "MarkupsFiducial"
        scene.append(SceneFile(kind, stem, name))
    models = write_stl(parts, folder, "lps")
    scene += [SceneFile("Model", p.name, path.name, p.color) for p, path in zip(parts, models, strict=True)]
    written(folder / _SCENE, scene_of(scene))
    return {
        "scene": _SCENE, "structures": _STRUCTURES, "models": [path.name for path in models],
        "markups": [f.file for f in scene if f.kind.startswith("Markups")],
    }  # fmt: skip


def markups_of(planned: Planned) -> dict[str, dict[str, Any]]:
    """Markups by the stem of their file: a line for each screw and path, points of measurements and flags.

    Coordinates are LPS mm, and each markup says so.
    """
    out: dict[str, dict[str, Any]] = {}
    for item in planned.plan.items:
        if isinstance(item, Screw | PlannedPath):
            entry, target = ends(item)
            points = [("entry", entry), ("tip" if isinstance(item, Screw) else "target", target)]
            out[_stem(item.id, out)] = _file("Line", item.id, points, locked=planned.plan.state == "approved")
    measured = [
        (f"{i.name} {k + 1}", p)
        for i in planned.plan.items
        if isinstance(i, Measured)
        for k, p in enumerate(i.points_ct)
    ]
    flagged = [(i.text, p) for i in planned.plan.items if isinstance(i, Flag) for p in i.points_ct]
    for name, points in (("measurements", measured), ("flags", flagged)):
        if points:
            out[_stem(name, out)] = _file("Fiducial", name, points, locked=True)
    return out


def _stem(name: str, taken: dict[str, Any]) -> str:
    stem, k = file_name(name), 2
    while stem in taken:
        stem, k = f"{file_name(name)}_{k}", k + 1
    return stem


def _file(kind: str, name: str, points: list[tuple[str, Any]], *, locked: bool) -> dict[str, Any]:
    return {
        "@schema": SCHEMA,
        "markups": [
            {
                "type": kind,
                "coordinateSystem": "LPS",
                "locked": locked,
                "labelFormat": f"{name}-%d",
                "controlPoints": [
                    {
                        "id": str(k + 1), "label": f"{name} {label}" if kind == "Line" else label,
                        "position": [float(x) for x in point], "selected": True, "locked": locked, "visibility": True,
                        "positionStatus": "defined",
                    }
                    for k, (label, point) in enumerate(points)
                ],
            }
        ],
    }  # fmt: skip


def _write_segmentation(planned: Planned, folder: Path) -> None:
    """The label map as Slicer's segmentation: an NRRD whose header names each label and gives its colour."""
    left_out = {s.label for s in planned.case.structures} - {s.label for s in planned.structures}
    image = sitk.ChangeLabel(planned.label_image, dict.fromkeys(left_out, 0))
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    extent = " ".join(f"0 {n - 1}" for n in image.GetSize())
    header = {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        # Slicer makes the surface as it loads the file.
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|Closed surface|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for k, s in enumerate(sorted(planned.structures, key=lambda s: s.label)):
        status = _STATUS[planned.states.get(s.name, "draft")]
        header |= {
            f"Segment{k}_ID": s.name, f"Segment{k}_Name": s.name, f"Segment{k}_LabelValue": str(s.label),
            f"Segment{k}_Color": " ".join(f"{x:.6g}" for x in rgb(s.color)), f"Segment{k}_Layer": "0",
            f"Segment{k}_Extent": extent, f"Segment{k}_NameAutoGenerated": "0", f"Segment{k}_ColorAutoGenerated": "0",
            f"Segment{k}_Tags": f"Segmentation.Status:{status}|",
        }  # fmt: skip
    for key, value in header.items():
        image.SetMetaData(key, value)
    part = folder / f".{_STRUCTURES}"
    sitk.WriteImage(image, str(part), useCompression=True)
    sync_file(part)
    moved(part, folder / _STRUCTURES)
