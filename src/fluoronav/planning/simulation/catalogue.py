"""Catalogues of implants: YAML with families and sizes, each a shape that is built or an STL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from manifold3d import CrossSection, Manifold
from pydantic import Field, ValidationError, model_validator

from fluoronav.case.file import read_yaml
from fluoronav.case.schema import Length, Name, Shaft, Strict
from fluoronav.planning.meshes.reading import read_surface
from fluoronav.planning.meshes.solid import MeshError, solid
from fluoronav.planning.simulation import shapes
from fluoronav.validation import first_error

Shape = Literal["pedicle_screw", "rod", "plate", "knee_femoral", "knee_tibial", "stl"]
_BUILT: dict[str, Callable[..., Manifold]] = {
    "pedicle_screw": shapes.pedicle_screw,
    "rod": shapes.rod,
    "plate": shapes.plate,
    "knee_femoral": shapes.knee_femoral,
    "knee_tibial": shapes.knee_tibial,
}
# What a shape needs of its size, and what it may have.
_NEEDS: dict[str, tuple[set[str], set[str]]] = {
    "pedicle_screw": ({"diameter_mm", "length_mm"}, set()),
    "rod": ({"diameter_mm", "length_mm"}, {"bend_radius_mm"}),
    "plate": ({"length_mm", "width_mm", "thickness_mm", "holes", "hole_mm"}, set()),
    "knee_femoral": ({"width_mm", "depth_mm", "thickness_mm"}, set()),
    "knee_tibial": ({"width_mm", "depth_mm", "thickness_mm", "stem_mm"}, set()),
    "stl": ({"file"}, {"width_mm", "depth_mm", "length_mm", "diameter_mm", "thickness_mm"}),
}


class Size(Strict):
    """One size; which keys there are depends on the shape."""

    diameter_mm: Shaft | None = None
    length_mm: Length | None = None
    width_mm: Length | None = None
    depth_mm: Length | None = None
    thickness_mm: Shaft | None = None
    stem_mm: Length | None = None
    bend_radius_mm: Length | None = None
    holes: int | None = Field(default=None, ge=0, le=40)
    hole_mm: Shaft | None = None
    file: Path | None = Field(default=None, description="STL of this size in mm, relative to the catalogue")


class Family(Strict):
    """One implant in its sizes, from the smallest to the largest."""

    shape: Shape
    demonstration: bool = Field(default=False, description="invented sizes: of no implant that exists")
    manufacturer: str = ""
    sizes: dict[Name, Size] = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _complete(self) -> Family:
        needed, more = _NEEDS[self.shape]
        for name, size in self.sizes.items():
            given = set(size.model_dump(exclude_none=True))
            if needed - given:
                raise ValueError(f"sizes: {name}: {sorted(needed - given)[0]} is missing for the shape {self.shape}")
            if given - needed - more:
                raise ValueError(f"sizes: {name}: the shape {self.shape} has no {sorted(given - needed - more)[0]}")
        return self


class _File(Strict):
    families: dict[Name, Family] = Field(min_length=1, max_length=500)


@dataclass(frozen=True)
class Catalogue:
    """Families by name, with the folder that their STL files are relative to."""

    families: dict[str, tuple[Family, Path]]

    def find(self, family: str, size: str) -> tuple[Family, Size, Path]:
        """A size of a family, and the folder of its catalogue.

        Raises
        ------
        MeshError
            There is none of that name.
        """
        if family not in self.families:
            raise MeshError(f"the catalogue has no family {family!r}; it has {', '.join(sorted(self.families))}")
        found, folder = self.families[family]
        if size not in found.sizes:
            raise MeshError(f"{family}: has no size {size!r}; it has {', '.join(found.sizes)}")
        return found, found.sizes[size], folder

    def body(self, family: str, size: str) -> tuple[Manifold, list[str]]:
        """The body of an implant in its own frame, mm, and what was repaired of its STL.

        Raises
        ------
        MeshError
        """
        found, sizes, folder = self.find(family, size)
        if found.shape == "stl":
            assert sizes.file is not None
            mesh, repaired = read_surface(folder / sizes.file)
            return solid(mesh, f"{family} {size}"), repaired
        try:
            made = _BUILT[found.shape](**sizes.model_dump(exclude_none=True))
        except ValueError as error:
            raise MeshError(f"{family} {size}: {error}") from error
        return made, []

    def outline(self, family: str, size: str) -> CrossSection | None:
        """What lies on the bone, in the plane z = 0 of the implant; None for implants that lie on none."""
        found, s, _ = self.find(family, size)
        given = s.model_dump(exclude_none=True)
        if found.shape == "plate":
            return shapes.plate_outline(given["length_mm"], given["width_mm"])
        if found.shape == "knee_tibial":
            return shapes.tibial_outline(given["width_mm"], given["depth_mm"])
        if found.shape == "knee_femoral":
            return shapes.femoral_outline(**given)
        if found.shape == "stl" and s.width_mm is not None:
            return self.body(family, size)[0].slice(1e-3)
        return None


def read_catalogue(path: Path | None = None) -> Catalogue:
    """The shipped demonstration catalogue, and a hospital's own over it.

    Raises
    ------
    MeshError, CaseError
    """
    with as_file(files("fluoronav.planning.simulation").joinpath("catalogue.yaml")) as shipped:
        families = _read(shipped)
    if path is not None:
        families |= _read(path)
    return Catalogue(families)


def _read(path: Path) -> dict[str, tuple[Family, Path]]:
    try:
        file = _File.model_validate(read_yaml(path))
    except ValidationError as error:
        raise MeshError(f"{path}: {first_error(error)}") from error
    return {name: (family, path.parent) for name, family in file.families.items()}
