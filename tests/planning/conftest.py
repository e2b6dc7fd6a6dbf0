"""A vertebra made of simple solids, whose pedicles have known widths."""

from dataclasses import dataclass

import numpy as np
import pytest
import SimpleITK as sitk


@dataclass(frozen=True)
class Phantom:
    """A vertebra: body, two pedicles, lamina, and processes; LPS mm, its middle at `centre_ct`.

    The canal is round, 9 mm in radius; pedicles are boxes beside it, `left_mm` and `right_mm` wide and 14 mm tall.
    """

    left_mm: float = 8.0
    right_mm: float = 5.0
    centre_ct: tuple[float, float, float] = (12.0, -30.0, 85.0)

    def inside(self, points_ct, *, ring_open=False):
        """Whether points (..., 3) lie in bone."""
        x, y, z = np.moveaxis(np.asarray(points_ct) - self.centre_ct, -1, 0)
        body = (x / 22) ** 2 + ((y + 25) / 16) ** 2 < 1
        body &= np.abs(z) < 13
        tall = np.abs(z - 4) < 7
        reach = (y > -16) & (y < 8)
        left = tall & reach & (x > 10) & (x < 10 + self.left_mm)
        right = tall & reach & (x < -10) & (x > -10 - self.right_mm)
        around = np.hypot(x, y)
        lamina = (np.abs(z - 2) < 8) & (around > 10) & (around < 15) & (y > 3)
        spinous = (np.abs(x) < 3) & (y > 10) & (y < 32) & (np.abs(z + 2) < 6)
        transverse = (np.abs(x) > 12) & (np.abs(x) < 34) & (y > 5) & (y < 12) & (np.abs(z - 4) < 5)
        if ring_open:
            lamina &= np.abs(x) > 8
            spinous &= False
        return (body & (around > 9.5)) | left | right | lamina | spinous | transverse

    def image(self, spacing=(0.8, 0.8, 0.8), direction=None, value=20, **how):
        """A label map around it, with 8 mm to spare."""
        direction = np.eye(3) if direction is None else np.asarray(direction, float)
        half = np.abs(direction.T) @ np.array([44.0, 52.0, 24.0])
        size = np.ceil(2 * half / spacing).astype(int)
        origin = np.array(self.centre_ct) + [0, -2.0, 0] - direction @ (half - np.array(spacing) / 2)
        axes = np.meshgrid(*(np.arange(n) for n in size[::-1]), indexing="ij")
        index = np.stack(axes[::-1], axis=-1) * np.array(spacing)
        mask = self.inside(index @ direction.T + origin, **how)
        image = sitk.GetImageFromArray(np.where(mask, value, 0).astype(np.uint8))
        image.SetSpacing([float(s) for s in spacing])
        image.SetOrigin(origin.tolist())
        image.SetDirection(direction.ravel().tolist())
        return image


@pytest.fixture(scope="session")
def phantom():
    return Phantom()
