"""What a simulation works on: bones as bodies and distances about lesions, made when first asked for and then kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk
from manifold3d import Manifold
from numpy.typing import NDArray

from fluoronav.case.volume import bounds
from fluoronav.planning.anatomy import meant
from fluoronav.planning.meshes.of_mask import mask_of, surface_of_mask
from fluoronav.planning.meshes.solid import MeshError, solid
from fluoronav.planning.plan.file import PlanError
from fluoronav.planning.simulation.resection import BORDER, AroundLesion, around_lesion

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BodySettings:
    """How coarse a preview is, and what is kept."""

    coarse_mm: float = 0.35  # by which simplifying may move a bone in a preview; chosen: a vertebra loses 1 % at most
    triangle_bytes: int = 250  # of a body in memory; estimated from manifold3d's half-edges, points and normals
    # Of a lesion whose distances are kept for other margins; chosen: each voxel takes 4 bytes.
    most_kept_voxels: int = 20_000_000
    # To which of these a margin is rounded up, so that a larger one needs no new distances; chosen.
    reaches_mm: tuple[float, ...] = (5.0, 10.0, 20.0, 35.0, 50.0)


SETTINGS = BodySettings()


class Kept:
    """Things that took long to make; the least used one goes when they take too much memory.

    Parameters
    ----------
    most_bytes : int
        A single thing that is larger is made anew each time.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._made: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._made)

    def known(self, key: Hashable) -> Any:
        """What is kept under a key; None where nothing is."""
        if key not in self._made:
            return None
        self._made.move_to_end(key)
        return self._made[key][0]

    def of(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """What is kept under a key, or is made now.

        Parameters
        ----------
        key : hashable
        make : callable
        size : callable
            Takes what was made; its bytes.
        """
        if (found := self.known(key)) is not None:
            return found
        made = make()
        self.keep(key, made, size(made))
        return made

    def keep(self, key: Hashable, made: object, size: int) -> None:
        """Keeps something in place of what was there."""
        self.bytes -= self._made.pop(key, (None, 0))[1]
        if size > self.most_bytes:
            return
        self._made[key] = made, size
        self.bytes += size
        while self.bytes > self.most_bytes:
            self.bytes -= self._made.popitem(last=False)[1][1]


@dataclass(frozen=True)
class LabelMap:
    """A label map that may lie in a file; only what is asked for is read.

    Attributes
    ----------
    voxels : ndarray, shape (z, y, x)
    spacing_mm, origin_ct : tuple of 3 float
        LPS.
    direction : tuple of 9 float
        Row by row; its columns are the grid's axes.
    """

    voxels: NDArray = field(repr=False)
    spacing_mm: tuple[float, float, float]
    origin_ct: tuple[float, float, float]
    direction: tuple[float, ...]
    owner: object = field(default=None, repr=False)  # whose memory the voxels are

    @classmethod
    def of_image(cls, image: sitk.Image) -> LabelMap:
        """The label map of an image, whose voxels are not copied."""
        voxels = sitk.GetArrayViewFromImage(image)
        return cls(voxels, image.GetSpacing(), image.GetOrigin(), image.GetDirection(), image)

    def box_of(self, label: int, name: str) -> NDArray[np.int64]:
        """First and last voxel (x, y, z) of a label, shape (2, 3).

        Raises
        ------
        MeshError
            The label has no voxel.
        """
        found = bounds(self.voxels == label)
        if found is None:
            raise MeshError(
                f"{name}: label {label} has no voxel in the label map; leave the structure out, or segment it"
            )
        return np.stack(found)

    def part(self, box: NDArray[np.int64], room: NDArray[np.int64]) -> sitk.Image:
        """The part about a box with so many voxels (x, y, z) around it; it ends where the scan ends."""
        size = np.array(self.voxels.shape[::-1])
        low, high = np.maximum(box[0] - room, 0), np.minimum(box[1] + room, size - 1)
        out = sitk.GetImageFromArray(
            np.ascontiguousarray(self.voxels[low[2] : high[2] + 1, low[1] : high[1] + 1, low[0] : high[0] + 1])
        )
        out.SetSpacing(self.spacing_mm)
        out.SetDirection(self.direction)
        axes = np.array(self.direction).reshape(3, 3)
        out.SetOrigin((np.array(self.origin_ct) + axes @ (low * np.array(self.spacing_mm))).tolist())
        return out


class Bodies:
    """Bodies of one label map.

    Parameters
    ----------
    labels : LabelMap
    structures : mapping of str to int
        Labels by name, without structures that a person has rejected.
    where : str
        What messages call the label map.
    kept : Kept
        May be shared by several label maps.
    key : hashable
        Tells label maps apart there.
    reaches_mm : sequence of float
        To which of these a lesion's margin is rounded up for its distances; none: they reach as far as the margin.
    """

    def __init__(
        self,
        labels: LabelMap,
        structures: Mapping[str, int],
        where: str,
        kept: Kept,
        key: Hashable = None,
        reaches_mm: tuple[float, ...] = (),
    ) -> None:
        self.labels, self.structures, self.where = labels, structures, where
        self.key, self._kept, self._reaches_mm = key, kept, reaches_mm

    def name_of(self, name: str) -> str:
        """The name in the label map of a structure, or of a vertebral level such as "T8".

        Raises
        ------
        PlanError
            There is no such structure.
        """
        found = meant(name, self.structures)
        if found is None:
            there = ", ".join(self.structures) or "none"
            raise PlanError(f"{self.where}: has no structure {name!r}; it has {there}")
        return found

    def bone(self, name: str, *, coarse: bool = False) -> Manifold:
        """The body of a structure, LPS mm; a coarse one for previews."""
        name = self.name_of(name)
        label = self.structures[name]

        def exact() -> Manifold:
            part = self.labels.part(self._box(label, name), np.full(3, 3))
            return solid(surface_of_mask(mask_of(part, label, name), name).mesh, name)

        whole = self._kept.of((self.key, "bone", label), exact, size_of)
        if not coarse:
            return whole
        return self._kept.of((self.key, "coarse", label), lambda: whole.simplify(SETTINGS.coarse_mm), size_of)

    def around(self, name: str, margin_mm: float) -> AroundLesion:
        """The distances about a lesion, at least as far as a margin."""
        name = self.name_of(name)
        label = self.structures[name]
        known = self._kept.known((self.key, "around", label))
        if known is not None and known.reach_mm >= margin_mm:
            return known
        reach = next((r for r in self._reaches_mm if r >= margin_mm), margin_mm)
        box = self._box(label, name)
        room = np.ceil(reach / np.array(self.labels.spacing_mm)).astype(np.int64) + BORDER
        made = around_lesion(self.labels.part(box, room), (name, label), reach)
        if made.voxels <= SETTINGS.most_kept_voxels:
            self._kept.keep((self.key, "around", label), made, made.voxels * 4)
        return made

    def _box(self, label: int, name: str) -> NDArray[np.int64]:
        return self._kept.of((self.key, "box", label), lambda: self.labels.box_of(label, name), lambda box: box.nbytes)


def size_of(body: Manifold) -> int:
    """Bytes that a body takes in memory, about."""
    return body.num_tri() * SETTINGS.triangle_bytes
