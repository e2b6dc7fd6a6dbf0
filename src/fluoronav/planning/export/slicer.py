"""The plan for 3D Slicer: markups (JSON, LPS), the label map with its colours, surfaces, and a script that loads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from fluoronav.durable import moved, sync_file, written
from fluoronav.planning.meshes.parts import Part, file_name, write_stl
from fluoronav.planning.plan.planned import Planned, ends
from fluoronav.planning.plan.schema import Flag, Measured, Screw
from fluoronav.planning.plan.schema import Path as PlannedPath

# The first version of Slicer's schema: later ones add keys that are optional, so that every Slicer 5 reads it.
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.0.json#"
)
_LABELS, _COLORS, _SCRIPT = "labels.nrrd", "labels.ctbl", "load_in_slicer.py"
_LOADER = '''"""Loads this plan into 3D Slicer (5.0 or later), as a script that Slicer is started with."""

import os

import slicer

here = os.path.dirname(os.path.abspath(__file__))
colors = slicer.util.loadColorTable(os.path.join(here, "labels.ctbl"))
labels = slicer.util.loadLabelVolume(os.path.join(here, "labels.nrrd"))
labels.GetDisplayNode().SetAndObserveColorNodeID(colors.GetID())
segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Structures")
slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
segmentation.CreateClosedSurfaceRepresentation()
for name in {markups!r}:
    slicer.util.loadMarkups(os.path.join(here, name))
for name in {models!r}:
    # Slicer takes STL files as LPS.
    slicer.util.loadModel(os.path.join(here, name))
'''


def write_slicer(planned: Planned, parts: list[Part], folder: Path, say: Callable[[str], object]) -> dict[str, Any]:
    """Writes the files.

    Parameters
    ----------
    planned : Planned
    parts : list of Part
        Bodies of screws and simulated pieces; structures come as the label map.
    folder : Path
    say : callable
        Takes a text for each step.

    Returns
    -------
    dict
        Names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    markups = []
    for stem, content in markups_of(planned).items():
        written(folder / f"{stem}.mrk.json", (json.dumps(content, indent=1) + "\n").encode())
        markups.append(f"{stem}.mrk.json")
    say("writing the label map")
    part = folder / f".{_LABELS}"
    labels = sitk.Image(planned.label_image)
    for key in labels.GetMetaDataKeys():
        labels.EraseMetaData(key)
    sitk.WriteImage(labels, str(part), useCompression=True)
    sync_file(part)
    moved(part, folder / _LABELS)
    written(folder / _COLORS, _color_table(planned).encode())
    models = [p.name for p in write_stl(parts, folder, "lps")]
    written(folder / _SCRIPT, _LOADER.format(markups=markups, models=models).encode())
    return {"markups": markups, "models": models, "labels": _LABELS, "colors": _COLORS, "script": _SCRIPT}


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


def _color_table(planned: Planned) -> str:
    """Slicer's colour table: label, name, red, green, blue, opacity."""
    lines = ["# Color table file labels.ctbl", "0 background 0 0 0 0"]
    for s in sorted(planned.structures, key=lambda s: s.label):
        red, green, blue = (int(s.color[k : k + 2], 16) for k in (1, 3, 5))
        lines.append(f"{s.label} {file_name(s.name)} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"
