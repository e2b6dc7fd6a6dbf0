"""A scene of 3D Slicer (MRML): which files there are, what they are called, and in which colour each is drawn.

Names of nodes and attributes are those of the classes in Slicer's sources (``Libs/MRML/Core`` and
``Modules/Loadable/Markups/MRML``, their ``GetNodeTagName`` and ``ReadXMLAttributes``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote
from xml.etree import ElementTree

NodeKind = Literal["Segmentation", "Model", "MarkupsLine", "MarkupsFiducial"]
# Of each kind: the tags of its display and its storage.
_TAGS: dict[NodeKind, tuple[str, str]] = {
    "Segmentation": ("SegmentationDisplay", "SegmentationStorage"),
    "Model": ("ModelDisplay", "ModelStorage"),
    "MarkupsLine": ("MarkupsDisplay", "MarkupsJsonStorage"),
    "MarkupsFiducial": ("MarkupsFiducialDisplay", "MarkupsJsonStorage"),
}


@dataclass(frozen=True, slots=True)
class SceneFile:
    """One file of a scene.

    Attributes
    ----------
    kind : NodeKind
    name : str
        What Slicer calls it.
    file : str
        File name beside the scene.
    color : str, optional
        ``#rrggbb``; Slicer's own by default.
    """

    kind: NodeKind
    name: str
    file: str
    color: str | None = None


def scene_of(files: Sequence[SceneFile]) -> bytes:
    """The scene as XML; files are named relative to it."""
    root = ElementTree.Element("MRML", version="Slicer 5.0.0", userTags="")
    for k, file in enumerate(files, 1):
        display, storage = _TAGS[file.kind]
        ids = {tag: f"vtkMRML{tag}Node{k}" for tag in (file.kind, display, storage)}
        references = f"display:{ids[display]};storage:{ids[storage]};"
        ElementTree.SubElement(root, file.kind, id=ids[file.kind], name=file.name, references=references)
        drawn = ElementTree.SubElement(root, display, id=ids[display], name=display, visibility="true")
        if file.color is not None:
            red, green, blue = rgb(file.color)
            drawn.set("color", f"{red:.4g} {green:.4g} {blue:.4g}")
        stored = ElementTree.SubElement(root, storage, id=ids[storage], name=storage, fileName=quote(file.file))
        if file.kind == "Model":
            stored.set("coordinateSystem", "LPS")  # without it Slicer takes models of a scene as RAS
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"


def rgb(color: str) -> tuple[float, float, float]:
    """Red, green and blue of ``#rrggbb``, 0 to 1."""
    red, green, blue = (int(color[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue
