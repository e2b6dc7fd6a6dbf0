"""Sizes of screws that there are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import Field, field_validator

from fluoronav.case.schema import Length, Name, Shaft, Strict
from fluoronav.validation import read_yaml_of

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
    return read_yaml_of(path, Catalogue, ValueError, most_bytes=_MOST_BYTES, what="catalogue of screws")
