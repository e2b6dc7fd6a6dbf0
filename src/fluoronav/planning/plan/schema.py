"""The schema of ``plan.yaml``. Lengths in mm, angles in degrees, coordinates DICOM LPS of the CT."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fluoronav.case.schema import Length, Name, Point, Shaft, Strict
from fluoronav.geometry import is_rigid

Origin = Literal["proposed", "moved", "drawn"]
PlanState = Literal["draft", "reviewed", "approved"]
Side = Literal["left", "right"]
Grade = Literal["A", "B", "C", "D", "E"]


def _rigid(value: list[list[float]]) -> list[list[float]]:
    if [len(row) for row in value] != [4] * 4 or not is_rigid(value):
        raise ValueError("must be a rigid, right-handed 4 x 4 matrix")
    return value


Rigid4x4 = Annotated[list[list[float]], AfterValidator(_rigid), Field(description="4 x 4, rigid, right-handed, mm")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256")]


class _Item(Strict):
    """What every item of a plan has."""

    id: Name = Field(description="unique in the plan")
    origin: Origin
    audit: str = Field(default="", description="number of the audit line that made or last changed it")


class Screw(_Item):
    """A pedicle screw."""

    kind: Literal["screw"] = "screw"
    level: str = Field(description="vertebral level, such as T8")
    side: Side
    entry_ct: Point
    tip_ct: Point
    diameter_mm: Shaft
    length_mm: Length
    clearance_mm: float = Field(description="smallest distance of its surface to the pedicle's; negative: outside")
    breach_mm: float = Field(ge=0, description="how far its surface lies outside the bone of the pedicle")
    grade: Grade = Field(description="Gertzbein and Robbins")


class Path(_Item):
    """A straight path, such as that of a needle or a wire."""

    kind: Literal["path"] = "path"
    name: Name
    entry_ct: Point
    target_ct: Point
    diameter_mm: Shaft


class Cut(_Item):
    """A plane that a bone is cut with; the saw takes `kerf_mm` of bone, half on each side."""

    kind: Literal["cut"] = "cut"
    structure: Name
    point_ct: Point
    normal_ct: Point
    kerf_mm: float = Field(ge=0, le=5)
    wedge_to: Name | None = Field(
        default=None,
        description="id of a second cut of the same bone: the bone past this one and before that is taken out",
    )


class Move(_Item):
    """How the piece of a bone on one side of a cut is moved."""

    kind: Literal["move"] = "move"
    cut: Name = Field(description="id of the cut; the piece on the side of its normal moves")
    T_moved_ct: Rigid4x4


class Resection(_Item):
    """What is taken out around a lesion."""

    kind: Literal["resection"] = "resection"
    lesion: Name
    margin_mm: float = Field(gt=0, le=50)


class Implant(_Item):
    """An implant at its place."""

    kind: Literal["implant"] = "implant"
    family: Name
    size: Name
    T_ct_implant: Rigid4x4
    structure: Name | None = None


class Measured(_Item):
    """A measurement, with the points to draw."""

    kind: Literal["measurement"] = "measurement"
    name: Name
    structure: Name | None = None
    value: float
    unit: Literal["mm", "deg", "cm3", "HU", "1"]
    uncertainty: float | None = Field(default=None, ge=0, description="one standard deviation, in `unit`")
    method: str
    points_ct: tuple[Point, ...] = ()


class Flag(_Item):
    """A finding that a person has to acknowledge."""

    kind: Literal["flag"] = "flag"
    what: Name
    text: str
    structure: Name | None = None
    points_ct: tuple[Point, ...] = ()
    acknowledged_by: str = ""


class View(_Item):
    """A C-arm view to guide from."""

    kind: Literal["view"] = "view"
    item: Name = Field(description="id of the screw or path that it is for")
    orbital_deg: float
    angular_deg: float
    error_mm: float = Field(gt=0, description="expected error of the tip in the direction that matters, 95 %")
    bound_mm: float | None = Field(
        default=None, gt=0, description="the bound that the guidance will state for it, 95 %"
    )


Item = Annotated[Screw | Path | Cut | Move | Resection | Implant | Measured | Flag | View, Field(discriminator="kind")]


class Plan(Strict):
    """One revision of a plan; revisions are never changed.

    Attributes
    ----------
    parent : str or None
        Hash of the revision before.
    ct_hash, labels_hash : str
        Of the volumes that it was made on, by :func:`fluoronav.planning.plan.hashes.volume_hash`: voxels and place.
    frame_of_reference : str
        FrameOfReferenceUID of the CT (a pseudonym in a pseudonymous case), or empty where the file has none.
    """

    schema_version: Literal[1] = 1
    case: Name
    revision: int = Field(ge=1)
    parent: Hash | None = None
    ct_hash: Hash
    labels_hash: Hash | None = None
    frame_of_reference: str = ""
    state: PlanState = "draft"
    author: str = ""
    made: str = Field(description="ISO 8601 with time zone")
    note: str = ""
    reviewed_by: str = ""
    approved_by: str = ""
    items: tuple[Item, ...] = ()
