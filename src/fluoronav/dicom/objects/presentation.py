"""Grayscale presentation states (GSPS): graphics over the image that they were computed on (PS3.3 A.33.1)."""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.graphics import Graphics, Line, Point, Text, to_state
from fluoronav.dicom.objects.modules import finished, identity, stand_ins
from fluoronav.dicom.objects.provenance import DRAFT, Provenance, digest_of
from fluoronav.dicom.objects.segmentation import lab
from fluoronav.dicom.objects.source import Source

_DRAFT_COLOR = "#ff9f0a"
_DRAFT_AT = 0.02  # of the picture's width and height; chosen: inside the corner


def presentation_state(
    source: Source, provenance: Provenance, graphics: Graphics, *, frame: int = 1, description: str = "Guidance"
) -> Dataset:
    """A presentation state with graphics over one frame of an image.

    Parameters
    ----------
    source : Source
        One X-ray image, single or multi-frame.
    provenance : Provenance
    graphics : Graphics
        In pixels of the image. What lies outside it is cut off.
    frame : int
        Counted from 1.

    Raises
    ------
    DicomError
        A colour image, a series of slices, no such frame, or nothing inside the image.
    """
    image = source.single()
    source.check_frame(frame)
    rows, columns = int(image.Rows), int(image.Columns)
    if int(image.get("SamplesPerPixel") or 1) != 1:
        raise DicomError(f"{source.name}: is a colour image; a grayscale presentation state is of a grey one")
    drawn = graphics.within(rows, columns)
    if not len(drawn):
        raise DicomError(f"{source.name}: nothing of the overlay lies inside the image; there is nothing to present")
    drawn = with_draft_mark(drawn, provenance, rows, columns)
    ids = identity("GSPS", source, provenance, digest_of(str(frame), drawn.content()))
    stand_in = stand_ins(source)
    layers = {
        name: hd.pr.GraphicLayer(name, order=k + 1, display_color=lab(color))
        for k, (name, color) in enumerate(drawn.layers().items())
    }
    producer = provenance.producer
    out = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=stand_in,
        series_instance_uid=ids.series_uid,
        series_number=ids.series_number,
        sop_instance_uid=ids.instance_uid,
        instance_number=1,
        manufacturer=producer.manufacturer,
        manufacturer_model_name=producer.model,
        software_versions=producer.software[0],
        device_serial_number=producer.serial,
        content_label=provenance.content_label("GUIDANCE"),
        content_description=provenance.labelled(description),
        graphic_annotations=[_annotation(stand_in, layer, drawn, frame, source.frames) for layer in layers.values()],
        graphic_layers=list(layers.values()),
        modality_lut_transformation=_modality_lut(image),
        voi_lut_transformations=[_window(image)],
        # The image's photometric interpretation counts for nothing here: the state alone says what is bright.
        presentation_lut_transformation=hd.PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if image.get("PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
        ),
    )
    if source.frames > 1:
        for series in out.ReferencedSeriesSequence:
            for item in series.ReferencedImageSequence:
                item.ReferencedFrameNumber = frame
        for item in out.DisplayedAreaSelectionSequence:
            if "ReferencedImageSequence" in item:
                del item.ReferencedImageSequence
    return finished(out, source, provenance, description)


def referenced_frame(state: Dataset, source: Source) -> int:
    """The frame of an image, counted from 1, that a presentation state is of.

    Raises
    ------
    DicomError
        The state is of another image, or of no presentation state's kind.
    """
    for series in state.get("ReferencedSeriesSequence") or ():
        for item in series.get("ReferencedImageSequence") or ():
            if item.ReferencedSOPInstanceUID == source.single().SOPInstanceUID:
                return int(np.atleast_1d(item.get("ReferencedFrameNumber") or 1)[0])
    raise DicomError(f"{source.name}: is not the image that the presentation state refers to")


def with_draft_mark(graphics: Graphics, provenance: Provenance, rows: int, columns: int) -> Graphics:
    """The graphics with the word "DRAFT" in the corner, unless a person has accepted them."""
    if not provenance.is_draft:
        return graphics
    at = np.array([columns, rows], dtype=np.float64) * _DRAFT_AT
    mark = Text(at, f"{DRAFT}, not accepted", _DRAFT_COLOR, DRAFT)
    return Graphics(graphics.lines, graphics.points, (*graphics.texts, mark))


def _annotation(
    images: list, layer: hd.pr.GraphicLayer, drawn: Graphics, frame: int, frames: int
) -> hd.pr.GraphicAnnotation:
    objects, texts = [], []
    for g in drawn:
        if g.layer != layer.GraphicLayer:
            continue
        if isinstance(g, Line):
            objects.append(hd.pr.GraphicObject("POLYLINE", to_state(g.points_px), units="PIXEL"))
        elif isinstance(g, Point):
            objects.append(hd.pr.GraphicObject("POINT", to_state(g.at_px)[None], units="PIXEL"))
        else:
            at = to_state(g.at_px)
            texts.append(
                hd.pr.TextObject(
                    g.text, units="PIXEL", anchor_point=(float(at[0]), float(at[1])), anchor_point_visible=False
                )
            )
    return hd.pr.GraphicAnnotation(
        referenced_images=images,
        graphic_layer=layer,
        referenced_frame_number=frame if frames > 1 else None,
        graphic_objects=objects or None,
        text_objects=texts or None,
    )


def _modality_lut(image: Dataset) -> hd.ModalityLUTTransformation:
    """The image's rescale; the identity where it has none. highdicom finds none in classic multi-frame images."""
    return hd.ModalityLUTTransformation(
        rescale_intercept=float(image.get("RescaleIntercept") or 0),
        rescale_slope=float(image.get("RescaleSlope") or 1),
        rescale_type=str(image.get("RescaleType") or "US"),
    )


def window_of(image: Dataset) -> tuple[float, float]:
    """Centre and width of the image's first window; the whole range of stored values where it has none."""
    center, width = image.get("WindowCenter"), image.get("WindowWidth")
    if center not in (None, "") and width not in (None, ""):
        return float(np.atleast_1d(center)[0]), float(np.atleast_1d(width)[0])
    stored = int(image.get("BitsStored") or 16)
    slope, intercept = float(image.get("RescaleSlope") or 1), float(image.get("RescaleIntercept") or 0)
    low = -(2 ** (stored - 1)) if int(image.get("PixelRepresentation") or 0) else 0
    return (low + 2 ** (stored - 1)) * slope + intercept, 2**stored * slope


def _window(image: Dataset) -> hd.pr.SoftcopyVOILUTTransformation:
    center, width = window_of(image)
    return hd.pr.SoftcopyVOILUTTransformation(window_center=center, window_width=width)
