"""Contents by type: there and back, golden bytes, and pyigtl as the other side."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.openigtlink.conftest import at, matrix, tracking

from fluoronav.geometry import exp_se3
from fluoronav.openigtlink.content import (
    pack_image,
    pack_polydata,
    pack_start_tracking,
    pack_status,
    pack_string,
    pack_tracking_data,
    pack_transform,
    unpack_image,
    unpack_polydata,
    unpack_status,
    unpack_string,
    unpack_tracking_data,
    unpack_transform,
)
from fluoronav.openigtlink.protocol import ProtocolError

T = exp_se3([0.3, -0.2, 0.5, 10, 20, 1500])


def test_a_transform_is_its_columns_and_then_the_translation():
    assert pack_transform(T) == matrix(T)
    np.testing.assert_allclose(unpack_transform(matrix(T)), T, atol=1e-4)


def test_tracking_data_are_70_bytes_for_each_tool():
    tools = [("Stylus", T), ("NeedleGuideToTracker", at(5))]
    content = pack_tracking_data(tools)
    assert content == tracking(tools) and len(content) == 140
    first, second = unpack_tracking_data(content)
    assert (first.name, first.name_full, second.name, second.name_full) == (
        "Stylus", False, "NeedleGuideToTracker", True
    )  # fmt: skip
    np.testing.assert_allclose(first.T, T, atol=1e-4)


def test_a_start_of_tracking_has_its_interval_and_no_coordinate_frame():
    assert pack_start_tracking(16) == struct.pack("> I", 16) + bytes(32)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=80))
def test_a_string_comes_back_in_every_language(text):
    content = pack_string(text)
    assert struct.unpack_from("> H", content)[0] == (3 if text.isascii() else 106)
    assert unpack_string(content) == text


def test_a_string_that_is_too_long_is_cut_between_letters():
    content = pack_string("ü" * 40000)
    assert unpack_string(content) == "ü" * 32767


@given(st.integers(0, 65535), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30))
def test_a_status_has_a_code_and_a_text(code, text):
    assert unpack_status(pack_status(code, text, "Error")) == (code, f"Error: {text}" if text else "Error")


@given(
    arrays.arrays(
        st.sampled_from(["u1", "<u2", ">u2", "<i4", "<f4"]), arrays.array_shapes(min_dims=2, max_dims=3, max_side=5)
    )
)
def test_a_picture_keeps_its_place(pixels):
    again, T_again = unpack_image(pack_image(pixels, T))
    np.testing.assert_array_equal(again, pixels if pixels.ndim == 3 else pixels[None])
    np.testing.assert_allclose(T_again, T, atol=1e-3)


def test_a_picture_is_placed_by_its_centre_in_ras():
    T = np.diag([0.5, 2.0, 1.0, 1.0])
    content = pack_image(np.zeros((3, 5), np.uint8), T)
    assert struct.unpack_from("> H B B B B 3H", content) == (1, 1, 3, 2, 1, 5, 3, 1)
    assert struct.unpack_from("> 3f", content, 12 + 36) == (1.0, 2.0, 0.0)
    assert struct.unpack_from("> 6H", content, 12 + 48) == (0, 0, 0, 5, 3, 1)
    assert len(content) == 72 + 15


def test_a_picture_that_does_not_fit_the_format_is_refused():
    for pixels in (np.zeros((0, 3), "u1"), np.zeros((1, 70000), "u1"), np.zeros((2, 2), "c8"), np.zeros(4, "u1")):
        with pytest.raises(ValueError, match="IMAGE has room"):
            pack_image(pixels, np.eye(4))


def test_triangles_are_read_and_other_polydata_is_refused():
    points, triangles = np.arange(12.0).reshape(4, 3), np.array([[0, 1, 2], [1, 2, 3]])
    content = pack_polydata(points, triangles)
    assert struct.unpack_from("> 10I", content) == (4, 0, 0, 0, 0, 2, 32, 0, 0, 0)
    assert content[40 + 48 :] == struct.pack("> 8I", 3, 0, 1, 2, 3, 1, 2, 3)
    again = unpack_polydata(content)
    np.testing.assert_array_equal(again[0], points)
    np.testing.assert_array_equal(again[1], triangles)
    assert unpack_polydata(pack_polydata(np.empty((0, 3)), np.empty((0, 3))))[0].shape == (0, 3)
    for wrong in (content[:-4], content[:30], content[:-4] + struct.pack("> I", 9)):
        with pytest.raises(ProtocolError):
            unpack_polydata(wrong)


@given(st.binary(max_size=200))
def test_noise_is_refused_with_a_reason_by_every_type(noise):
    for unpack in (unpack_transform, unpack_tracking_data, unpack_status, unpack_string, unpack_image, unpack_polydata):
        try:
            unpack(noise)
        except ProtocolError as refused:
            assert refused.reason == "content" and str(refused)


def test_pyigtl_reads_our_picture():
    pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed (extra `dev`)")
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    theirs = pyigtl.ImageMessage()
    theirs._unpack_content(pack_image(pixels, T))
    np.testing.assert_array_equal(theirs.image[0], pixels)
    np.testing.assert_allclose(theirs.ijk_to_world_matrix, T, atol=1e-3)
    assert theirs.world_coordinate_system == "ras"
