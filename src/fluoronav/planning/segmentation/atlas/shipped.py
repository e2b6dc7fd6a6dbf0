"""The atlas that is shipped: one chest CT with its labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.planning.anatomy import LEVELS, vertebra, vocabulary
from fluoronav.planning.segmentation.engine import SegmentationError

Float = NDArray[np.float64]
HERE = Path(__file__).parent
VERSION = "atlas 1 (LIDC-IDRI chest)"
# Vertebrae that the atlas holds as a whole, from head to feet; C7 and L3 are cut by its ends.
WHOLE = LEVELS[LEVELS.index("T1") : LEVELS.index("L2") + 1]
# Levels below the atlas are drawn with the shape of its last whole vertebra; L4 came out between 0.68 and 0.84 (Dice).
BORROWED = ("L3",)


@dataclass(frozen=True)
class Atlas:
    """A labelled CT.

    Attributes
    ----------
    ct : SimpleITK.Image
        HU, float32, axes along the patient's.
    labels : SimpleITK.Image
        uint8 on the same grid, numbered as :mod:`fluoronav.planning.anatomy`.
    body_centres : dict
        Centre of each whole vertebra's body, atlas mm, shape (3,).
    centres : dict
        Centre of each whole vertebra with its arch, atlas mm, shape (3,).
    """

    ct: sitk.Image = field(repr=False)
    labels: sitk.Image = field(repr=False)
    body_centres: dict[str, Float] = field(repr=False)
    centres: dict[str, Float] = field(repr=False)

    def mask(self, level: str) -> sitk.Image:
        """The vertebra of a whole level, uint8."""
        return self.labels == vertebra(level).label


def template_of(level: str) -> str:
    """The level whose shape in the atlas stands for a level."""
    return WHOLE[-1] if level in BORROWED else level


@cache
def load_atlas() -> Atlas:
    """The shipped atlas; its files are verified by their hashes.

    Raises
    ------
    SegmentationError
        A file is missing or was changed.
    """
    for line in (HERE / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        path = HERE / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise SegmentationError(f"{path}: is missing or not the file that was shipped; install fluoronav again")
    ct = sitk.ReadImage(str(HERE / "ct.nrrd"), sitk.sitkFloat32)
    labels = sitk.ReadImage(str(HERE / "labels.nrrd"), sitk.sitkUInt8)
    bodies, centres = _centres(labels)
    return Atlas(ct, labels, bodies, centres)


def _centres(labels: sitk.Image) -> tuple[dict[str, Float], dict[str, Float]]:
    """Centres of the bodies and of the whole vertebrae."""
    voxels = sitk.GetArrayViewFromImage(labels)
    origin, spacing = np.array(labels.GetOrigin()), np.array(labels.GetSpacing())
    cord = next(k for k, s in vocabulary().items() if s.name == "spinal_cord")
    cord_points = origin + np.argwhere(voxels == cord)[:, ::-1] * spacing
    bodies, centres = {}, {}
    for level in WHOLE:
        points = origin + np.argwhere(voxels == vertebra(level).label)[:, ::-1] * spacing
        z = points[:, 2].mean()
        # The body is what lies in front of the canal (towards smaller y); 4 mm keep the pedicles out.
        nearest = cord_points[np.abs(cord_points[:, 2] - z).argsort()[:200]]
        front = points[points[:, 1] < nearest[:, 1].min() - 4]
        bodies[level], centres[level] = (front.min(0) + front.max(0)) / 2, points.mean(0)
    return bodies, centres
