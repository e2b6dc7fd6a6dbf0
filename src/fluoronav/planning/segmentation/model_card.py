"""The card of a segmentation network: ``card.yaml`` beside its ONNX file, made from the files of nnU-Net."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator

from fluoronav.case.schema import Name, Strict
from fluoronav.durable import written
from fluoronav.paths import regular_file
from fluoronav.planning.segmentation.engine import SegmentationError
from fluoronav.validation import first_error, read_yaml_of

CARD = "card.yaml"
_MOST_CARD_BYTES = 1_000_000
_CT_NORMALISATION = "CTNormalization"
_Spacing = Annotated[float, Field(gt=0.1, lt=20)]
Triple = tuple[_Spacing, _Spacing, _Spacing]


class Intensity(Strict):
    """nnU-Net's normalisation of CT: HU are clipped, then `mean` is taken off and the rest divided by `deviation`."""

    low: float
    high: float
    mean: float
    deviation: float = Field(gt=0)


class Card(Strict):
    """What must be known of a network to run it, and of its origin to trust it."""

    name: Name
    version: str
    file: str = Field(pattern=r"^[^/\\]+\.onnx$", description="beside the card; input 1 x 1 x z x y x x, output logits")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str = Field(min_length=1)
    origin: str = Field(min_length=1, description="who trained it, on what")
    intended_use: str = ""
    orientation: str = Field(
        description="towards which side of the patient the axes of its arrays grow, x first, such as RAS (as in "
        "nibabel and SimpleITK's DICOMOrient); `file` takes each image as it is stored"
    )
    spacing_mm: Triple = Field(description="z, y, x")
    patch: tuple[int, int, int] = Field(description="z, y, x, voxels")
    intensity: Intensity
    labels: dict[str, int] = Field(description="structure to channel; background is channel 0 and not listed")
    mirror_axes: tuple[int, ...] = Field(default=(), description="of z, y, x: 0, 1, 2; used with --mirror alone")

    @field_validator("orientation")
    @classmethod
    def _three_axes(cls, value: str) -> str:
        axes = [next((pair for pair in ("LR", "AP", "IS") if letter in pair), "") for letter in value]
        if value != "file" and sorted(axes) != ["AP", "IS", "LR"]:
            raise ValueError("must be three letters such as RAS or LPS, or the word file")
        return value

    @field_validator("labels")
    @classmethod
    def _in_order(cls, value: dict[str, int]) -> dict[str, int]:
        if sorted(value.values()) != list(range(1, len(value) + 1)):
            raise ValueError("must be the channels 1, 2, 3 ... without a gap; 0 is the background")
        return value


def read_card(folder: Path) -> Card:
    """The card of the model in a folder.

    Raises
    ------
    SegmentationError
    """
    advice = "`fluoronav plan model` makes one of nnU-Net's files"
    return read_yaml_of(
        folder / CARD, Card, SegmentationError, most_bytes=_MOST_CARD_BYTES, what="model card", advice=advice
    )


def read_model(folder: Path, card: Card) -> bytes:
    """The network's bytes, if they have the card's hash.

    Raises
    ------
    SegmentationError
    """
    path = folder / card.file
    try:
        content = regular_file(path).read_bytes()
    except OSError as error:
        raise SegmentationError(f"{path}: cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise SegmentationError(f"{path}: is not the file that {folder / CARD} describes: its SHA-256 differs")
    return content


def card_from_nnunet(
    model: Path, plans: Path, dataset: Path, configuration: str, *, orientation: str, licence: str, origin: str
) -> Card:
    """The card of a network that nnU-Net (version 2) has trained.

    Parameters
    ----------
    model : Path
        The network as ONNX.
    plans, dataset : Path
        ``plans.json`` and ``dataset.json`` of the trained model.
    configuration : str
        Such as ``3d_fullres``.
    orientation : str
        See :class:`Card`. nnU-Net takes images as they are stored; TotalSegmentator turns them to RAS first.
    licence, origin : str

    Raises
    ------
    SegmentationError
        The model needs something that is not done here; the text says what.
    """
    plan, data = _json(plans), _json(dataset)
    try:
        return _card(model, plan, data, configuration, orientation, licence, origin)
    except ValidationError as error:
        raise SegmentationError(f"{plans}: {first_error(error)}") from error
    except (LookupError, TypeError, AttributeError) as error:
        raise SegmentationError(
            f"{plans}, {dataset}: are not the files of an nnU-Net 2 model with the configuration {configuration!r}: "
            f"{type(error).__name__} {error}"
        ) from error


def _card(
    model: Path, plan: dict[str, Any], data: dict[str, Any], configuration: str, orientation: str, licence: str,
    origin: str,
) -> Card:  # fmt: skip
    inherited = plan["configurations"][configuration]
    settings = {**plan["configurations"].get(inherited.get("inherits_from"), {}), **inherited}
    if settings["normalization_schemes"] != [_CT_NORMALISATION]:
        raise SegmentationError(f"{configuration}: normalises by {settings['normalization_schemes']}, not as CT")
    if list(plan["transpose_forward"]) != [0, 1, 2]:
        raise SegmentationError(f"{configuration}: exchanges axes ({plan['transpose_forward']}); train it without")
    if len(settings["patch_size"]) != 3:
        raise SegmentationError(f"{configuration}: works slice by slice; a 3D configuration is needed")
    labels = dict(data["labels"])
    if any(not isinstance(v, int) for v in labels.values()):
        raise SegmentationError("dataset.json: its labels are regions that overlap; plain labels are needed")
    seen = plan["foreground_intensity_properties_per_channel"]["0"]
    return Card(
        name=str(plan["dataset_name"])[:64],
        version=str(plan.get("plans_name", "nnUNetPlans")),
        file=model.name,
        sha256=hashlib.sha256(regular_file(model).read_bytes()).hexdigest(),
        licence=licence,
        origin=origin,
        orientation=orientation,
        spacing_mm=tuple(settings["spacing"]),
        patch=tuple(settings["patch_size"]),
        intensity=Intensity(
            low=seen["percentile_00_5"], high=seen["percentile_99_5"], mean=seen["mean"], deviation=seen["std"]
        ),
        labels={name: value for name, value in labels.items() if name != "background"},
    )


def write_card(card: Card, folder: Path) -> Path:
    """Writes a card beside its network."""
    path = folder / CARD
    written(path, yaml.safe_dump(card.model_dump(mode="json"), sort_keys=False).encode())
    return path


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(regular_file(path).read_bytes())
    except (OSError, ValueError) as error:
        raise SegmentationError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise SegmentationError(f"{path}: holds no mapping")
    return content
