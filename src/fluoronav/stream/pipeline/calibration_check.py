"""Whether a frame was taken with the geometry that the camera file is calibrated for."""

from __future__ import annotations

from fluoronav.wire import FrameHeader

# Relative difference between the focal length that a frame's `sdd_mm` and `pixel_mm` make and the camera file's that is
# rounding; the smallest zoom or step of the detector is ten times as large.
_FOCAL_TOLERANCE = 0.005


class CalibrationCheck:
    """Compares what frames say of their geometry with the camera file, and with one another.

    Parameters
    ----------
    focal_px : tuple of 2 float or None
        The camera's focal length, horizontal and vertical, pixels.
    sdd_mm : float or None
        The source-to-detector distance that the camera is calibrated for.
    names : tuple of str
        What a frame may call this calibration; empty: anything.
    file : str
        The camera file, for messages.
    """

    def __init__(
        self, focal_px: tuple[float, float] | None, sdd_mm: float | None, names: tuple[str, ...], file: str
    ) -> None:
        self._focal_px, self._sdd_mm, self._names, self._file = focal_px, sdd_mm, names, file
        self._pixel_mm = [sdd_mm / f for f in focal_px] if sdd_mm and focal_px else None
        self._optics: tuple[object, ...] | None = None  # of the last frame that fitted

    def fault(self, header: FrameHeader) -> str | None:
        """What of a frame's header does not fit the calibration, beginning with the field; None where all fits."""
        optics = header.camera, header.sdd_mm, header.sid_mm, header.pixel_mm
        if optics == self._optics:
            return None
        if header.camera is not None and self._names and header.camera not in self._names:
            return (
                f"camera: is {header.camera[:64]!r}, {self._file} is {self._names[0]!r}: run with the camera file of "
                "that calibration, or give this one that `name`"
            )
        if header.sid_mm is not None and header.sdd_mm is not None and header.sid_mm >= header.sdd_mm:
            return (
                f"sid_mm: {header.sid_mm:g} mm from the source to the isocentre is not less than the {header.sdd_mm:g} "
                "mm to the detector (sdd_mm)"
            )
        unfit = self._other_focal(header)
        if unfit is None:
            self._optics = optics
            self._sdd_mm = self._sdd_mm or header.sdd_mm
            self._pixel_mm = self._pixel_mm or header.pixel_mm
        return unfit

    def _other_focal(self, header: FrameHeader) -> str | None:
        """Whether a frame was taken with another focal length than the camera file's."""
        sdd, pixel = header.sdd_mm, header.pixel_mm
        do = "a zoom or another distance of the detector needs a camera file of its own: set it back, or run with that"
        if self._focal_px is not None and pixel is not None:
            said_x, said_y = self._focal_px
            if self._differ(pixel[1] / pixel[0], said_x / said_y):
                return (
                    f"pixel_mm: {pixel[0]:g} x {pixel[1]:g} mm are not as square as {self._file} says (focal lengths "
                    f"{said_x:.1f} and {said_y:.1f} pixels); {do}"
                )
            if sdd is not None:
                if not self._differ(sdd / pixel[0], said_x) and not self._differ(sdd / pixel[1], said_y):
                    return None
                zoomed = self._sdd_mm is not None and not self._differ(sdd, self._sdd_mm)
                return (
                    f"{'pixel_mm' if zoomed else 'sdd_mm'}: {sdd:g} mm in pixels of {pixel[0]:g} mm are a focal length "
                    f"of {sdd / pixel[0]:.1f} pixels, {self._file} says {said_x:.1f}; {do}"
                )
        # One alone tells no focal length, but a change of it is one of the focal length.
        if sdd is not None and self._sdd_mm is not None and self._differ(sdd, self._sdd_mm):
            return f"sdd_mm: is {sdd:g} mm, but {self._sdd_mm:g} mm for {self._file}; {do}"
        if (
            sdd is None
            and pixel is not None
            and self._pixel_mm is not None
            and self._differ(pixel[0], self._pixel_mm[0])
        ):
            return f"pixel_mm: is {pixel[0]:g} mm, but was {self._pixel_mm[0]:g} mm with {self._file}; {do}"
        return None

    def _differ(self, a: float, b: float) -> bool:
        return abs(a - b) > _FOCAL_TOLERANCE * b
