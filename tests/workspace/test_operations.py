"""What the server does to a label map on request."""

import numpy as np
import pytest
from tests.workspace.conftest import CORD, LESION, SHAPE, T8, T9, Editor, index, phantom

from fluoronav.workspace.operations import between

SPACING, ORIGIN = np.array([1.5, 1.25, 3.0]), np.array([-20.0, 31.5, -200.0])


def place(z, y, x):
    """LPS mm of a voxel of the phantom, whose y axis runs backwards."""
    return (ORIGIN + SPACING * np.array([x, -y, z])).tolist()


def disc(radius, centre, shape=(40, 36)):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def test_between_two_discs_the_radius_grows_evenly():
    middle = between(disc(4, (20, 18)), disc(10, (20, 18)), 3, np.array([1.0, 1.0]))
    radii = np.sqrt(middle.sum(axis=(1, 2)) / np.pi)
    assert np.allclose(radii, [5.5, 7, 8.5], atol=0.4)


def test_between_two_discs_that_do_not_overlap_the_shape_moves_across():
    middle = between(disc(4, (10, 8)), disc(4, (30, 26)), 1, np.array([1.0, 1.0]))[0]
    y, x = np.nonzero(middle)
    assert (y.mean(), x.mean()) == pytest.approx((20, 17), abs=0.3) and middle.sum() == pytest.approx(49, abs=6)


def test_a_gap_between_drawn_slices_is_filled_and_nothing_else_is_overwritten(server, case):
    page = Editor(server, case)
    page.do("structure", label=LESION, name="lesion_1")
    for z in (5, 9):
        page.stroke(index(z, *np.nonzero(disc(4, (15, 20)))), LESION)
    kept = page.voxels()[6:9] == T9
    page.do("interpolate", label=LESION)
    filled = page.voxels()[6:9] == LESION
    assert filled.any(axis=(1, 2)).all() and not (filled & kept).any()
    assert ((page.voxels()[7] == LESION) | kept[1])[disc(4, (15, 20))].all()
    page.ask("undo")
    assert not (page.voxels()[6:9] == LESION).any()
    refused = page.ask("operations", operation="interpolate", label=LESION, slices=[5, 7])
    assert refused.status_code == 422 and "draw it there first" in refused.json()["error"]


@pytest.mark.parametrize("axis", ["x", "y"])
def test_slices_of_other_directions_are_interpolated_too(server, case, axis):
    page = Editor(server, case)
    page.do("structure", label=LESION, name="lesion_1")
    for k in (28, 33):
        grid = np.ix_([4, 5, 6], [30, 31, 32], [k]) if axis == "x" else np.ix_([4, 5, 6], [k], [4, 5, 6])
        page.stroke(index(*np.broadcast_arrays(*grid)).reshape(-1), LESION)
    page.do("interpolate", label=LESION, axis=axis)
    assert (page.voxels() == LESION).sum() == 9 * 6


def test_a_structure_or_one_piece_of_it_gets_another_label(server, case):
    page = Editor(server, case)
    page.stroke(index(10, 35, np.arange(5, 8)), T8)
    page.do("relabel", **{"from": T8, "to": T9, "seed_ct": place(10, 35, 6)})
    assert (page.voxels()[10, 35, 5:8] == T9).all() and (page.voxels() == T8).any()
    page.do("relabel", **{"from": T8, "to": 34})
    assert not (page.voxels() == T8).any()
    assert {s["name"] for s in page.state["structures"] if s["voxels"]} == {
        "vertebrae_T9", "vertebrae_T10", "spinal_cord"
    }  # fmt: skip
    nothing = page.ask("operations", operation="erase", label=T9, seed_ct=place(0, 0, 0))
    assert nothing.status_code == 422 and "nothing of label" in nothing.json()["error"]


def test_a_structure_in_two_pieces_is_split_and_one_in_one_piece_is_cut_by_a_plane(server, case):
    page = Editor(server, case)
    one = page.ask("operations", operation="split", label=T8, by="components", to=[T9])
    assert one.status_code == 422 and "in one piece" in one.json()["error"]
    page.stroke(index(11, 35, np.arange(5, 8)), T8)
    page.do("split", label=T8, by="components", to=[34])
    assert (page.voxels()[11, 35, 5:8] == 34).all() and (page.voxels() == T8).sum() == (phantom()[1] == T8).sum()
    page.do("split", label=T8, by="plane", point_ct=place(2, 14.5, 17), normal_ct=[0, 1, 0], to=33)
    rows = {k: set(np.nonzero(page.voxels() == k)[1]) for k in (T8, 33)}
    assert rows == {33: set(range(10, 15)), T8: set(range(15, 20))}  # +y of LPS is towards lower rows here


def test_a_threshold_stays_in_its_region(server, case):
    page = Editor(server, case)
    hounsfield = phantom()[0]
    page.do("structure", label=LESION, name="metal")
    page.do("threshold", label=LESION, low_hu=1000, high_hu=3000, within={"label": T8})
    assert np.argwhere(page.voxels() == LESION).tolist() == [[2, 12, 14]]
    page.do("threshold", label=T9, low_hu=300, high_hu=3000, within={"box": [[0, 0, 0], [35, 39, 2]]}, over=[T8])
    assert ((page.voxels() == T9)[:3] == ((phantom()[1] == T8) & (hounsfield != 1200))[:3]).all()
    page.do("threshold", label=33, low_hu=0, high_hu=100, within={"centre_ct": place(6, 34, 30), "radius_mm": 4})
    z, y, x = np.nonzero(page.voxels() == 33)
    away = np.linalg.norm((np.stack([x, y, z], 1) - [30, 34, 6]) * SPACING, axis=1)
    assert away.max() <= 4 and len(away) > 20
    outside = page.ask(
        "operations", operation="threshold", label=33, low_hu=0, high_hu=1,
        within={"centre_ct": [9e3, 0, 0], "radius_mm": 3},
    )  # fmt: skip
    assert outside.status_code == 422


def test_holes_are_filled_slice_by_slice_or_as_cavities(server, case):
    page = Editor(server, case)
    page.stroke(index(2, 14, np.arange(15, 18)), 0)
    page.do("fill", label=T8)
    assert (page.voxels() == phantom()[1]).all()
    page.stroke(index(1, 14, 15), 0)
    cavity = page.ask("operations", operation="fill", label=T8, axis="volume")
    assert cavity.status_code == 422  # it is open towards the neck


def test_an_operation_is_one_step_and_one_audit_line(server, case):
    page = Editor(server, case)
    page.do("erase", label=CORD)
    assert page.state["undo"] == 1 and not (page.voxels() == CORD).any()
    (line,) = page.http.get(f"{page.at}/audit?last=1").json()["lines"]
    assert (line["what"], line["structure"], line["voxels"]) == (
        "erase",
        "spinal_cord",
        int((phantom()[1] == CORD).sum()),
    )
    assert page.voxels().shape == SHAPE
