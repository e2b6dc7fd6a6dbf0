"""Sides on the workspace's page are the patient's: letters, and where what is drawn ends up in the saved file."""

import uuid

import numpy as np
import pytest
from tests.workspace.page.conftest import T8, oriented_case, saved

COS, SIN = np.cos(np.radians(20)), np.sin(np.radians(20))
DIRECTIONS = {
    "head-first": np.diag([1.0, 1, 1]),
    "left-handed": np.diag([1.0, -1, 1]),
    "feet-first": np.diag([-1.0, 1, -1]),
    "prone": np.diag([-1.0, -1, 1]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}
# The grid's x and y turned about the body's axis by 20 degrees.
OBLIQUE = np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]])


def open_oriented(opened, server, direction):
    name = f"O{uuid.uuid4().hex[:12]}"
    oriented_case(server.root, name, direction)
    return opened(name)


def letters(page, cut):
    page.place(cut, (18, 20, 6))
    page.page.wait_for_timeout(200)
    return page.page.get_attribute(f"[data-view={cut}] .cornerstone", "data-letters")


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_letters_are_the_patients_sides_however_the_series_was_taken(opened, server, name):
    page = open_oriented(opened, server, DIRECTIONS[name])
    assert letters(page, "axial") == "R L A P"  # left, right, top, bottom of the screen
    assert letters(page, "sagittal") == "A P H F"
    assert letters(page, "coronal") == "R L H F"


def test_an_oblique_series_shows_both_letters(opened, server):
    page = open_oriented(opened, server, OBLIQUE)
    assert letters(page, "axial") == "RA LP AL PR"
    assert letters(page, "coronal") == "RA LP H F"


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_label_painted_at_the_patients_left_is_at_image_right_and_left_in_the_file(opened, server, name):
    page = open_oriented(opened, server, DIRECTIONS[name])
    page.choose(T8)
    page.tool("brush", radius_mm=3)
    x, y = page.js("""() => {
      const { view } = fluoronavWorkspace;
      const cut = view.cuts.cuts[0];
      view.cuts.setCross(view.grid.centre);
      const { left, top, width, height } = cut.box.getBoundingClientRect();
      const [ax] = cut.viewport.worldToCanvas(view.grid.centre);
      const [bx] = cut.viewport.worldToCanvas(view.grid.centre.map((c, k) => c + (k === 0 ? 15 : 0)));
      return [left + bx, top + height / 2, ax < bx];
    }""")[:2]
    box = page.page.locator("[data-view=axial] .cornerstone").bounding_box()
    assert x > box["x"] + box["width"] / 2
    before = page.labels()
    page.page.mouse.click(x, y)
    page.settled()
    drawn = np.argwhere((page.labels() == T8) & (before != T8))
    assert len(drawn)
    page.save()
    image = saved(server, page.case)
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    for z, y, x in drawn.tolist():
        assert image.GetPixel(x, y, z) == T8
        point = image.TransformIndexToPhysicalPoint((x, y, z))
        assert 10 < point[0] - centre[0] < 20  # left in LPS
