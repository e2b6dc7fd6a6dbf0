"""Each tool of the workspace's page changes the voxels that it should, on the page and in the saved file."""

import numpy as np
import SimpleITK as sitk
from tests.workspace.page.conftest import T8, T9, saved

# In the phantom (z, y, x): T8 lies in [1:4, 10:20, 12:24], T9 in [5:8, 10:20, 11:23]; the body is 40 HU, bone 400.


def changed(before, after):
    return [tuple(v) for v in np.argwhere(before != after)]


def test_the_brush_draws_the_chosen_structure_in_one_slice(page):
    page.choose(T8)
    before = page.labels()
    page.tool("brush", radius_mm=4)
    page.stroke("axial", (28, 30, 2), (31, 30, 2))
    after = page.labels()
    drawn = changed(before, after)
    assert drawn and {z for z, _, _ in drawn} == {2}
    assert all(after[v] == T8 for v in drawn)
    assert after[2, 30, 28] == after[2, 30, 31] == T8
    assert page.page.inner_text("#undo") == "↶ Undo 1"


def test_the_ball_draws_through_slices(page):
    page.choose(T8)
    before = page.labels()
    page.tool("brush", radius_mm=5, ball=True)
    page.stroke("axial", (28, 30, 6))
    assert {z for z, _, _ in changed(before, page.labels())} == {5, 6, 7}


def test_a_stroke_in_a_sagittal_cut_lies_in_that_cut(page):
    page.choose(T8)
    before = page.labels()
    page.tool("brush", radius_mm=4)
    page.stroke("sagittal", (30, 30, 4), (30, 30, 8))
    drawn = changed(before, page.labels())
    assert {x for _, _, x in drawn} == {30}
    assert {4, 5, 6, 7, 8} <= {z for z, _, _ in drawn}


def test_other_structures_are_kept_unless_the_user_says_otherwise(page):
    page.choose(T9)
    page.tool("brush", radius_mm=3)
    page.stroke("axial", (15, 15, 2))
    assert (page.labels() == T9).sum() == 3 * 10 * 12  # as it was: the stroke lay in T8
    page.tool("brush", keep=False)
    page.stroke("axial", (15, 15, 2))
    assert page.labels()[2, 15, 15] == T9


def test_the_eraser_takes_only_the_chosen_structure(page):
    page.choose(T9)
    page.tool("eraser", radius_mm=3)
    page.stroke("axial", (15, 15, 2))
    assert page.labels()[2, 15, 15] == T8
    page.choose(T8)
    page.tool("eraser")
    page.stroke("axial", (15, 15, 2))
    assert page.labels()[2, 15, 15] == 0


def test_the_threshold_brush_draws_only_in_its_range(page):
    page.choose(T9)
    page.tool("threshold", radius_mm=12, low_hu=1000, high_hu=2000, keep=False)
    before = page.labels()
    page.stroke("axial", (14, 14, 2))
    assert changed(before, page.labels()) == [(2, 12, 14)]  # the one voxel of 1200 HU


def test_interpolation_fills_the_slices_between(page):
    page.choose(T8)
    page.tool("brush", radius_mm=4)
    page.stroke("axial", (30, 30, 3))
    page.stroke("axial", (30, 30, 9))
    page.tool("look")
    page.page.click("#tools button:has-text('Interpolate')")
    page.answer("Drawn in axial cuts")
    page.page.wait_for_selector("#undo:has-text('Undo 3')")
    assert (page.labels()[3:10, 30, 30] == T8).all()


def test_relabelling_gives_the_whole_structure_another_name(page):
    page.choose(T8)
    page.page.click("#tools button:has-text('Relabel')")
    page.page.select_option("dialog select", str(T9))
    page.answer("Go on", "All of it")
    page.page.wait_for_selector("#undo:has-text('Undo 1')")
    labels = page.labels()
    assert labels[2, 15, 15] == T9
    assert not (labels == T8).any()


def test_a_structure_is_split_along_a_drawn_line(page):
    page.choose(T8)
    page.page.click("#tools button:has-text('Split')")
    page.page.select_option("dialog select", str(T9))
    page.answer("Go on", "Along a line")
    page.page.wait_for_selector("#hint:has-text('begins')")
    page.click("axial", (17.5, 5, 2))
    page.page.wait_for_selector("#hint:has-text('ends')")
    page.click("axial", (17.5, 25, 2))
    page.page.wait_for_selector("#hint:has-text('side')")
    page.click("axial", (22, 15, 2))
    page.page.wait_for_selector("#undo:has-text('Undo 1')")
    labels = page.labels()
    assert (labels[1:4, 10:20, 12:17] == T8).all()
    assert (labels[1:4, 10:20, 19:24] == T9).all()


def test_a_new_structure_is_named_drawn_and_saved(page, server):
    page.page.click("text=+ Add")
    page.page.select_option("dialog select", "new")
    page.page.fill("dialog input", "lesion 1")
    page.answer("Add")
    page.page.wait_for_selector("text=Lesion 1")
    page.tool("brush", radius_mm=4)
    page.stroke("axial", (30, 30, 6))
    label = int(page.labels()[6, 30, 30])
    assert label > 255
    assert "revision 2" in page.save()
    assert (sitk.GetArrayFromImage(saved(server, page.case)) == label).any()


def test_twenty_steps_are_undone_after_a_reload(page):
    page.choose(T8)
    page.tool("brush", radius_mm=2)
    start = page.labels()
    for k in range(20):
        page.stroke("axial", (6 + k, 28 + k % 3, 2 + k % 4))
    drawn = page.labels()
    page.reload()
    np.testing.assert_array_equal(page.labels(), drawn)
    for _ in range(20):
        page.page.keyboard.press("Control+z")
        page.settled()
    np.testing.assert_array_equal(page.labels(), start)
    for _ in range(20):
        page.page.keyboard.press("Control+y")
        page.settled()
    np.testing.assert_array_equal(page.labels(), drawn)


def test_the_page_draws_the_colour_of_a_structure_and_not_where_it_is_hidden(page):
    page.tool("look")
    page.page.keyboard.press("x")  # the cross out of the way
    at = page.place("axial", (18, 15, 2))
    pixel = """([x, y]) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
      const { canvas } = fluoronavWorkspace.view.cuts.cuts[0].overlay;
      const { left, top } = canvas.getBoundingClientRect();
      done(canvas.getContext("2d").getImageData(x - left, y - top, 1, 1).data[3]);
    })))"""
    assert page.js(pixel, list(at)) > 50
    page.page.click(f"[data-structure='{T8}'] .eye")
    assert page.js(pixel, list(at)) == 0
