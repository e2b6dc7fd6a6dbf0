"""A simulated X-ray image of a planned view, with what is planned drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.case.volume import Volume
from fluoronav.geometry import Camera, CArmPose
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.model import bone_grid, tissue_grid

Float = NDArray[np.float64]
Grey = NDArray[np.uint8]

_LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))  # of the patient's axes (LPS), at the positive and the negative end
_BLACK, _WHITE = 0, 255
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """How pictures are made; all chosen."""

    side_px: int = 560  # 280 dots an inch at 50 mm
    field_mm: float = 100.0  # at the isocentre; a C-arm with a 300 mm panel shows 186: the middle is enlarged
    margin_mm: float = 25.0  # around what is planned, where that needs a larger field
    reach_mm: float = 150.0  # of the tissue that is projected, from the isocentre to each side
    tissue_mm: float = 1.2  # voxels
    bone_mm: float = 0.8  # voxels of the bone that is outlined
    fade_mm: float = 8.0
    bone_gain: float = 1.0  # the target bone's own attenuation is added, so that it stands out in print
    smooth_px: float = 4.0  # of the outline, 1 sigma: voxels show no steps
    name_px: float = 60.0  # from a shaft's entry to its name
    dark_percent: float = 1.0  # of the pixels are black, and
    bright_percent: float = 99.5  # up to here they are not white
    clip: float = 2.0  # of the local equalisation
    least_length: float = 0.42  # of a direction along an edge that gets a letter: as on the display
    scale_mm: float = 20.0  # length of the bar
    jpeg: int = 88


SETTINGS = PictureSettings()


@dataclass(frozen=True)
class Shaft:
    """A screw or a path to draw; LPS mm."""

    name: str
    entry_ct: tuple[float, float, float]
    tip_ct: tuple[float, float, float]
    diameter_mm: float


class XrayPictures:
    """Pictures of one place in the patient, from any angle.

    Parameters
    ----------
    ct : Volume
        HU.
    surroundings : Volume or None
    labels : Volume or None
    bones : sequence of int
        Labels of the bones that are outlined.
    shafts : sequence of Shaft
        What is drawn; their middle is the isocentre.
    reach_mm : float
        From the source to the isocentre.
    """

    def __init__(
        self, ct: Volume, surroundings: Volume | None, labels: Volume | None, bones: Sequence[int],
        shafts: Sequence[Shaft], reach_mm: float, settings: PictureSettings = SETTINGS,
    ) -> None:  # fmt: skip
        self._shafts, self._reach_mm, self._settings = tuple(shafts), reach_mm, settings
        ends = np.array([[s.entry_ct, s.tip_ct] for s in shafts], np.float64).reshape(-1, 3)
        self.isocentre_ct = ends.mean(axis=0)
        s = settings
        self._tissue = Projector(tissue_grid(ct, self.isocentre_ct, s.reach_mm, s.tissue_mm, s.fade_mm, surroundings))
        self._bone = None
        if bones and labels is not None:
            self._bone = Projector(bone_grid(ct, labels, tuple(bones), s.bone_mm))
        widest = 2 * (np.linalg.norm(ends - self.isocentre_ct, axis=1).max() + s.margin_mm)
        self._camera = _square(s.side_px, max(s.field_mm, float(widest)), reach_mm)

    def jpeg(self, orbital_deg: float, angular_deg: float) -> bytes:
        """The picture at two angles."""
        done, data = cv2.imencode(
            ".jpg", self.picture(orbital_deg, angular_deg), [cv2.IMWRITE_JPEG_QUALITY, self._settings.jpeg]
        )
        assert done
        return data.tobytes()

    def picture(self, orbital_deg: float, angular_deg: float) -> Grey:
        """The picture at two angles, shape (side, side), dense tissue bright."""
        x, y, z = self.isocentre_ct.tolist()
        T = CArmPose((x, y, z), self._reach_mm, orbital_deg, angular_deg).T_camera_ct()
        image = self._tissue.render(T, self._camera)
        bone = self._bone.render(T, self._camera) if self._bone else None
        if bone is not None:
            image += np.float32(self._settings.bone_gain) * bone
        grey = self._window(image)
        if bone is not None:
            self._outline(grey, bone)
        for shaft in self._shafts:
            self._draw(grey, shaft, T)
        self._names(grey, T)
        self._letters(grey, T)
        self._bar(grey)
        return grey

    def _window(self, image: NDArray[np.float32]) -> Grey:
        s = self._settings
        low, high = np.percentile(image, [s.dark_percent, s.bright_percent])
        grey = (np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
        return np.asarray(cv2.createCLAHE(s.clip, (4, 4)).apply(grey), np.uint8)

    def _outline(self, grey: Grey, bone: NDArray[np.float32]) -> None:
        mask = (bone > 0.02 * float(bone.max())).astype(np.float32)
        mask = (cv2.GaussianBlur(mask, (0, 0), self._settings.smooth_px) > 0.5).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for colour, width in ((_BLACK, 4), (_WHITE, 2)):
            cv2.drawContours(grey, contours, -1, (colour,), width, cv2.LINE_AA)

    def _draw(self, grey: Grey, shaft: Shaft, T_camera_ct: Float) -> None:
        """The shaft in its width, a square at its entry, a disc at its tip, and its name."""
        ends = np.array([shaft.entry_ct, shaft.tip_ct])
        camera = ends @ T_camera_ct[:3, :3].T + T_camera_ct[:3, 3]
        entry, tip = self._camera.project(camera)
        width = shaft.diameter_mm * self._camera.K[0, 0] / camera[:, 2].mean()
        along = (tip - entry) / max(float(np.linalg.norm(tip - entry)), 1e-6)
        across = np.array([-along[1], along[0]]) * width / 2
        outline = np.array([entry + across, tip + across, tip - across, entry - across]).round().astype(np.int32)
        for colour, thick in ((_BLACK, 5), (_WHITE, 2)):
            cv2.polylines(grey, [outline], True, (colour,), thick, cv2.LINE_AA)
        at, r = entry.round().astype(int), 6
        cv2.rectangle(grey, at - r - 2, at + r + 2, (_BLACK,), -1)
        cv2.rectangle(grey, at - r, at + r, (_WHITE,), -1)
        at = tip.round().astype(int)
        cv2.circle(grey, at, 7, (_BLACK,), -1, cv2.LINE_AA)
        cv2.circle(grey, at, 5, (_WHITE,), -1, cv2.LINE_AA)

    def _names(self, grey: Grey, T_camera_ct: Float) -> None:
        """The names beside the entries, each on the side away from the others."""
        ends = np.array([[s.entry_ct, s.tip_ct] for s in self._shafts])
        entries, tips = np.moveaxis(self._camera.project(ends @ T_camera_ct[:3, :3].T + T_camera_ct[:3, 3]), 1, 0)
        middle = (entries.mean(axis=0) + tips.mean(axis=0)) / 2
        for shaft, entry in zip(self._shafts, entries, strict=True):
            away = entry - middle
            at = entry + self._settings.name_px * away / max(float(np.linalg.norm(away)), 1e-6)
            _text(grey, shaft.name, (float(at[0]), float(at[1])), 0.95)

    def _letters(self, grey: Grey, T_camera_ct: Float) -> None:
        """The patient's directions at the edges, as on a radiograph: the display's rule (`page/directions.js`)."""
        side = self._settings.side_px
        for (dx, dy), at in (
            ((-1, 0), (0, side / 2)), ((1, 0), (side, side / 2)), ((0, -1), (side / 2, 0)), ((0, 1), (side / 2, side)),
        ):  # fmt: skip
            parts = [
                (sign * (dx * T_camera_ct[0, k] + dy * T_camera_ct[1, k]), pair[0 if sign > 0 else 1])
                for k, pair in enumerate(_LETTERS)
                for sign in (1, -1)
            ]
            told = sorted((p for p in parts if p[0] > self._settings.least_length), reverse=True)[:2]
            _text(grey, "".join(letter for _, letter in told), at, 1.0)

    def _bar(self, grey: Grey) -> None:
        s = self._settings
        length = s.scale_mm * self._camera.K[0, 0] / self._reach_mm
        x, y = s.side_px - 18, s.side_px - 18
        for colour, more, thick in ((_BLACK, 2, 8), (_WHITE, 0, 4)):
            cv2.line(grey, (round(x - length) - more, y), (x + more, y), (colour,), thick)
        _text(grey, f"{s.scale_mm:g} mm", (x - length / 2, y - 22), 0.8)


def _square(side_px: int, field_mm: float, reach_mm: float) -> Camera:
    """A camera whose image shows `field_mm` at the isocentre."""
    focal, middle = side_px * reach_mm / field_mm, (side_px - 1) / 2
    return Camera(side_px, side_px, np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1.0]]), name="briefing")


def _text(grey: Grey, text: str, centre: tuple[float, float], size: float) -> None:
    """White letters on black, kept inside the picture."""
    (width, height), below = cv2.getTextSize(text, _FONT, size, 2)
    rows, cols = grey.shape
    x = int(np.clip(centre[0] - width / 2, 6, max(cols - width - 6, 6)))
    y = int(np.clip(centre[1] + height / 2, height + 6, rows - 7))
    cv2.rectangle(grey, (x - 5, y - height - 5), (x + width + 4, y + below // 2 + 1), (_BLACK,), -1)
    cv2.putText(grey, text, (x, y), _FONT, size, (_WHITE,), 2, cv2.LINE_AA)
