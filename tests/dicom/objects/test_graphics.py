"""An overlay's graphics lie on the pixels that they were computed on, in a presentation state and burnt in."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dicom.objects.scene import ACCEPTED, ALERTS, COUNTS, DRAFT, OVERLAY, REGISTRATION, ct, errors_of, recorded

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects import (
    Acquisition,
    Graphics,
    graphics_in,
    graphics_of,
    presentation_state,
    referenced_frame,
    secondary_capture,
    source_of,
    write_object,
    xray_run,
)
from fluoronav.dicom.objects.graphics import DANGER, Line, Point, Text
from fluoronav.wire.messages import Alert, Distance, Instrument, Outline, PlanProgress, Registration

RUN = source_of([recorded()], "run")
PRESENTED = presentation_state(RUN, DRAFT, graphics_of(OVERLAY), frame=3)


def test_the_messages_of_these_tests_are_those_of_the_wire():
    for key, kind in (
        ("outlines", Outline),
        ("plan", PlanProgress),
        ("instruments", Instrument),
        ("distances", Distance),
    ):
        for item in OVERLAY[key]:
            msgspec.convert(item, kind)
    msgspec.convert(REGISTRATION, Registration)
    msgspec.convert(ALERTS, list[Alert])


def objects_of(state, layer):
    items = [a for a in state.GraphicAnnotationSequence if a.GraphicLayer == layer]
    return [(g.GraphicType, np.array(g.GraphicData).reshape(-1, 2)) for a in items for g in a.GraphicObjectSequence]


def test_the_centre_of_the_first_pixel_is_half_a_pixel_from_the_corner():
    """PS3.3 C.10.5.1.2: the first pixel reaches from 0.0\\0.0 to 1.0\\1.0; an overlay's pixel centres are integers."""
    ((kind, points),) = objects_of(PRESENTED, "OUTLINE 1")
    assert kind == "POLYLINE"
    np.testing.assert_allclose(points, [[10.5, 10.5], [50.5, 10.5], [51, 60.75], [10.5, 10.5]])


def test_an_instrument_has_its_tip_its_shaft_and_the_nearest_structure_in_the_colour_of_its_level():
    shapes = objects_of(PRESENTED, "TOOL DANGER")
    assert [kind for kind, _ in shapes] == ["POLYLINE", "POINT"]
    # The tail is outside the picture: the shaft ends at its edge.
    np.testing.assert_allclose(shapes[0][1], [[120.5, 131], [239.5, 131]])
    np.testing.assert_allclose(shapes[1][1], [[120.5, 131]])
    texts = [
        t.UnformattedTextValue for a in PRESENTED.GraphicAnnotationSequence for t in a.get("TextObjectSequence", ())
    ]
    assert "kwire: aorta 2.3 mm" in texts and "T8_left" in texts
    assert graphics_in(PRESENTED, 3).layers()["TOOL DANGER"] == DANGER


def test_it_is_of_one_frame_of_a_multi_frame_image():
    assert referenced_frame(PRESENTED, RUN) == 3
    frames = {i.ReferencedFrameNumber for a in PRESENTED.GraphicAnnotationSequence for i in a.ReferencedImageSequence}
    assert frames == {3}
    assert len(graphics_in(PRESENTED, 2)) == 0
    other = source_of([recorded(ACCEPTED)], "another run")
    with pytest.raises(DicomError, match="is not the image that the presentation state refers to"):
        referenced_frame(PRESENTED, other)


@pytest.mark.parametrize(("meaning", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_over_a_single_image_without_a_window_it_is_valid_and_shows_the_same_brightness(tmp_path, meaning, shape):
    counts = COUNTS[:1]
    image = xray_run(source_of(ct(), "ct"), DRAFT, counts, Acquisition(12, (0,)))
    del image.WindowCenter, image.WindowWidth
    image.PhotometricInterpretation = meaning
    source = source_of([image], "image")
    state = presentation_state(source, DRAFT, graphics_of(OVERLAY))
    write_object(state, tmp_path / "gsps.dcm")
    assert errors_of(tmp_path / "gsps.dcm") == [] and state.PresentationLUTShape == shape
    picture = secondary_capture(source, ACCEPTED, counts[0], Graphics()).pixel_array[..., 0].astype(int)
    slope = np.polyfit(counts[0].ravel(), picture.ravel(), 1)[0]
    assert slope == pytest.approx(255 / 4096 * (-1 if meaning == "MONOCHROME1" else 1), rel=0.02)


def test_graphics_come_back_as_they_went():
    back = graphics_in(PRESENTED, 3)
    within = graphics_of(OVERLAY).within(*COUNTS.shape[1:])
    assert sorted(t.text for t in back.texts) == sorted(t.text for t in within.texts)
    for a, b in zip(
        sorted(back.lines, key=lambda g: g.layer), sorted(within.lines, key=lambda g: g.layer), strict=True
    ):
        np.testing.assert_allclose(a.points_px, b.points_px, atol=1e-4)


def test_the_twin_has_the_graphics_in_its_pixels():
    dark = np.full_like(COUNTS[2], 200)
    made = secondary_capture(RUN, ACCEPTED, dark, graphics_in(PRESENTED, 3), frame=3)
    picture = made.pixel_array
    red, green, blue = picture[10, 30]
    assert int(red) > int(green) + 50 and int(red) > int(blue) + 50, "the outline, #ec7063"
    assert picture[150, 200].max() == picture[150, 200].min(), "no graphics there"
    assert (made.SourceImageSequence[0].ReferencedFrameNumber, made.BurnedInAnnotation) == (3, "NO")


def test_a_draft_is_marked_in_the_picture_and_an_accepted_one_is_not():
    dark = np.full_like(COUNTS[2], 200)
    draft, final = (secondary_capture(RUN, p, dark, Graphics(), frame=3).pixel_array for p in (DRAFT, ACCEPTED))
    assert (draft[:12, :60] != final[:12, :60]).any()
    assert (final == final[0, 0]).all()


def test_texts_at_one_point_are_written_below_one_another():
    at = np.array([100.0, 80.0])
    dark = np.zeros_like(COUNTS[2])
    both = Graphics(texts=(Text(at, "one", "#ff0000", "A"), Text(at, "two", "#00ff00", "B")))
    picture = secondary_capture(RUN, ACCEPTED, dark, both, frame=3).pixel_array
    red, green = (np.flatnonzero((picture[..., k] > 128).any(axis=1)) for k in (0, 1))
    assert red.max() < green.min()


def test_what_fits_no_image_is_refused():
    series = source_of(ct(), "ct")
    with pytest.raises(DicomError, match="holds 26 images; name the file of one"):
        presentation_state(series, DRAFT, graphics_of(OVERLAY))
    with pytest.raises(DicomError, match="has 4 frames, not 5"):
        presentation_state(RUN, DRAFT, graphics_of(OVERLAY), frame=5)
    with pytest.raises(DicomError, match="nothing of the overlay lies inside"):
        presentation_state(RUN, DRAFT, Graphics(lines=(Line(np.array([[-9.0, -9], [-5, -5]]), "#ffffff", "A"),)))
    with pytest.raises(DicomError, match="two finite numbers"):
        graphics_of({"outlines": [{"color": "#ffffff", "paths": [[[1, 2], [float("nan"), 3]]]}]})
    with pytest.raises(DicomError, match="is 200 x 240 pixels"):
        secondary_capture(RUN, DRAFT, COUNTS[0][:100], Graphics())


coordinate = st.floats(-300, 500, allow_nan=False)


@given(st.lists(st.tuples(coordinate, coordinate), min_size=2, max_size=8))
def test_what_is_cut_off_lies_inside_and_on_the_line(points):
    line = np.array(points)
    graphics = Graphics(
        (Line(line, "#ffffff", "A"),), (Point(line[0], "#ffffff", "A"),), (Text(line[0], "t", "#ffffff", "A"),)
    )
    cut = graphics.within(200, 240)
    for g in cut.lines:
        assert (g.points_px >= -1e-6).all() and (g.points_px <= [239 + 1e-6, 199 + 1e-6]).all()
        for p in g.points_px:
            assert min(distance(p, a, b) for a, b in pairwise(line)) < 1e-6
    inside = bool((line[0] >= 0).all() and (line[0] <= [239, 199]).all())
    assert len(cut.points) == len(cut.texts) == inside


def distance(point, start, end):
    along = end - start
    length = float(along @ along)
    t = 0.0 if length == 0 else min(max(float((point - start) @ along) / length, 0), 1)
    return float(np.linalg.norm(point - start - t * along))
