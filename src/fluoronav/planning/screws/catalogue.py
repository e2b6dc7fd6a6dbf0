"""Sizes of screws that there are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, field_validator

from fluoronav.case.schema import Length, Name, Shaft, Strict
from fluoronav.paths import regular_file
from fluoronav.validation import first_error

_MOST_BYTES = 100_000  # chosen: a catalogue is a page


class Catalogue(Strict):
    """The content of a catalogue of pedicle screws (YAML)."""

    name: Name
    diameters_mm: tuple[Shaft, ...] = Field(min_length=1, max_length=64)
    lengths_mm: tuple[Length, ...] = Field(min_length=1, max_length=64)

    @field_validator("diameters_mm", "lengths_mm")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(value)))


def read_catalogue(path: Path | None = None) -> Catalogue:
    """Reads a catalogue; the shipped one by default.

    Raises
    ------
    ValueError
        The file cannot be read, or a field is wrong; the text names both.
    """
    if path is None:
        return Catalogue.model_validate(
            yaml.safe_load(files("fluoronav.planning.screws").joinpath("catalogue.yaml").read_text(encoding="utf-8"))
        )
    try:
        if regular_file(path).stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path}: is larger than {_MOST_BYTES} bytes; this is no catalogue of screws")
        return Catalogue.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ValueError(f"{path}: {first_error(error)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as a catalogue of screws (YAML): {error}") from error
