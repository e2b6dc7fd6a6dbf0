"""The schema of ``case.yaml``. Lengths in mm, angles in degrees, coordinates DICOM LPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from fluoronav.case.approved_plan import ApprovedPlan
from fluoronav.case.no_go import NoGo
from fluoronav.case.schema import CaseError, Color, Margin, Name, Point, Radius, SourceDistance, Strict, Uncertainty
from fluoronav.case.tool import Tool
from fluoronav.case.volume import CtUnits
from fluoronav.geometry import CArmPose, is_rigid
from fluoronav.paths import regular_file
from fluoronav.validation import first_error

Schema = TypeVar("Schema", bound=Strict)
_LONGEST_PATH_MM = 500.0  # of a trajectory; chosen: through a whole trunk
_MOST_YAML_BYTES = 4_000_000  # chosen: a case file is a page or two
_UNKNOWN_KEY = "unknown key; see docs/case-file.md for the keys there are"


class StructureEntry(Strict):
    """One anatomical structure of the label map."""

    name: Name
    label: int = Field(gt=0, description="its value in the label map")
    color: Color = "#ffffff"
    caution_mm: Margin | None = None
    danger_mm: Margin | None = None
    drawn: bool = Field(default=True, description="whether displays show its outline and surface")

    @model_validator(mode="after")
    def _ordered(self) -> StructureEntry:
        if (self.caution_mm is None) != (self.danger_mm is None):
            raise ValueError("give both caution_mm and danger_mm, or neither")
        if self.caution_mm is not None and self.danger_mm is not None and self.caution_mm <= self.danger_mm:
            raise ValueError("caution_mm must be larger than danger_mm")
        return self


class Trajectory(Strict):
    """A planned straight path."""

    name: Name
    entry_ct: Point
    target_ct: Point
    radius_mm: Radius = Field(default=2.5, le=20)

    @model_validator(mode="after")
    def _has_length(self) -> Trajectory:
        if np.linalg.norm(np.subtract(self.target_ct, self.entry_ct)) < 1:
            raise ValueError("entry_ct and target_ct must lie at least 1 mm apart (are they in metres?)")
        if np.linalg.norm(np.subtract(self.target_ct, self.entry_ct)) > _LONGEST_PATH_MM:
            raise ValueError(f"entry_ct and target_ct lie more than {_LONGEST_PATH_MM:g} mm apart (are they in mm?)")
        return self


class Spread(Strict):
    """Range of the true pose about the prior."""

    rotation_deg: float = Field(default=30, gt=0, le=180)
    in_plane_mm: Uncertainty = 100
    depth_mm: Uncertainty = 60


class PriorPose(Strict):
    """Pose of the C-arm before any registration, by its joints."""

    isocentre_ct: Point
    source_to_isocentre_mm: SourceDistance
    orbital_deg: float = 0
    angular_deg: float = 0
    swivel_deg: float = 0
    spread: Spread = Spread()

    def T_camera_ct(self) -> np.ndarray:
        """Patient to camera, shape (4, 4), mm."""
        return CArmPose(
            self.isocentre_ct, self.source_to_isocentre_mm, self.orbital_deg, self.angular_deg, self.swivel_deg
        ).T_camera_ct()


class Tracker(Strict):
    """The external tracker's reference marker, fixed to the patient."""

    reference: Name = Field(description="id under which the tracker reports the marker")
    T_ct_reference: list[list[float]] | None = Field(
        default=None, description="marker to patient, 4 x 4; without it, it is found from the pictures"
    )

    @field_validator("T_ct_reference")
    @classmethod
    def _rigid(cls, value: list[list[float]] | None) -> list[list[float]] | None:
        if value is not None and ([len(row) for row in value] != [4] * 4 or not is_rigid(value)):
            raise ValueError("must be a rigid, right-handed 4 x 4 matrix")
        return value


class Rigid(Strict):
    """Bones that move as one body with the registration."""

    structures: tuple[str, ...] = Field(min_length=1, description="names of structures; their bones are registered")


class RigidObject(Strict):
    """One or several bones with their own pose: structures of the label map, or a volume of their own."""

    name: Name
    structures: tuple[str, ...] = Field(default=(), description="names of structures that move together")
    volume: Path | None = Field(
        default=None, description="CT of this bone alone, air around it, in the patient frame of `ct`"
    )
    units: CtUnits | None = Field(
        default=None, description="units of the values of `volume`; inferred from the values by default"
    )

    @model_validator(mode="after")
    def _one_source(self) -> RigidObject:
        if bool(self.structures) == (self.volume is not None):
            raise ValueError("give either `structures` or `volume`")
        if self.units is not None and self.volume is None:
            raise ValueError("`units` are those of a `volume`: a bone of the label map has none")
        return self


class CaseFile(Strict):
    """The content of ``case.yaml``; file names are relative to it."""

    name: Name
    procedure: Name | None = Field(default=None, description="what is done, in words, for displays")
    ct: Path = Field(description="DICOM folder, NRRD or NIfTI")
    units: CtUnits | None = Field(
        default=None, description="units of the values of `ct` and `surroundings`; HU by default"
    )
    ct_series: str | None = Field(default=None, description="SeriesInstanceUID, where the folder holds several")
    labels: Path | None = Field(default=None, description="label map on any grid of the same patient frame")
    surroundings: Path | None = Field(
        default=None, description="coarse CT of the whole region, used where `ct` has nothing"
    )
    structures: tuple[StructureEntry, ...] = ()
    rigid: Rigid | None = None
    objects: tuple[RigidObject, ...] = Field(default=(), max_length=32, description="what gets a pose of its own, too")
    no_go: tuple[NoGo, ...] = Field(default=(), max_length=64, description="regions that no instrument may enter")
    plan: tuple[Trajectory, ...] = ()
    tools: tuple[Tool, ...] = ()
    prior: PriorPose
    tracker: Tracker | None = None
    approved_plan: ApprovedPlan | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CaseFile:
        for what, names in (
            ("structures and no_go", [s.name for s in (*self.structures, *self.no_go)]),
            ("objects", [o.name for o in self.objects]),
            ("plan", [t.name for t in self.plan]),
            ("tools", [t.id for t in self.tools]),
            ("structures: label", [str(s.label) for s in self.structures]),
        ):
            double = {n for n in names if names.count(n) > 1}
            if double:
                raise ValueError(f"{what}: {sorted(double)[0]!r} is there twice")
        if self.structures and self.labels is None:
            raise ValueError("structures need a label map: add `labels`")
        for where, bodies in (("rigid", [self.rigid] if self.rigid else []), ("objects", self.objects)):
            unknown = {s for body in bodies for s in body.structures} - {s.name for s in self.structures}
            if unknown:
                raise ValueError(f"{where}.structures: {sorted(unknown)[0]!r} is not one of the structures")
        return self


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a mapping with a repeated key, of which YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        double = next((k for k in keys if keys.count(k) > 1), None)
        if double is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {double!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; raises :class:`CaseError` with the line where it stops making sense."""
    try:
        if regular_file(path).stat().st_size > _MOST_YAML_BYTES:
            raise CaseError(f"{path}: is larger than {_MOST_YAML_BYTES} bytes: is it a case or a tool file?")
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_EachKeyOnce)  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path}: cannot be read: {error}") from error
    except RecursionError as error:
        raise CaseError(f"{path}: is nested too deeply to be a case or a tool file") from error
    except yaml.YAMLError as error:
        raise CaseError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error


def read_case_file(path: Path) -> CaseFile:
    """Reads and validates ``case.yaml``; raises :class:`CaseError`."""
    return read_with_tools(CaseFile, path, holds="a mapping of keys", unknown_key=_UNKNOWN_KEY)


def read_with_tools(schema: type[Schema], path: Path, *, holds: str, unknown_key: str) -> Schema:
    """Reads and validates a file that has a key ``tools``, with the tools' own files read into it.

    Parameters
    ----------
    schema : type of pydantic.BaseModel
    path : Path
    holds, unknown_key : str
        What is said of a file that holds no mapping, and of a key that is not in the schema.

    Raises
    ------
    CaseError
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise CaseError(f"{path}: must hold {holds}, not {type(content).__name__}")
    try:
        return schema.model_validate(_with_tool_files(path, content))
    except ValidationError as error:
        raise CaseError(f"{path}: {first_error(error, unknown_key=unknown_key)}") from error


def _with_tool_files(path: Path, content: dict[Any, Any]) -> dict[Any, Any]:
    """The content of a case file or of a file of instruments, with the tools' own files read into it."""
    tools = content.get("tools")
    if not isinstance(tools, list):
        return content
    return content | {"tools": [_with_its_file(path, k, tool) for k, tool in enumerate(tools)]}


def _with_its_file(case: Path, index: int, tool: Any) -> Any:
    """A tool of the case merged with its tool file; the case's keys take precedence."""
    if not isinstance(tool, dict) or "file" not in tool:
        return tool
    own = dict(tool)
    name = own.pop("file")
    if not isinstance(name, str):
        raise CaseError(f"{case}: tools.{index}.file: must be the name of a YAML file")
    path = case.parent / name
    geometry = read_yaml(path)
    if not isinstance(geometry, dict):
        raise CaseError(f"{path}: must hold a mapping of keys, not {type(geometry).__name__}")
    whole = {"id": "?"} | geometry | own
    try:
        Tool.model_validate(whole)
    except ValidationError as error:
        raise CaseError(f"{path}: {first_error(error, unknown_key=_UNKNOWN_KEY)}") from error
    return whole
