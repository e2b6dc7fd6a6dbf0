"""The workspace's page in a real headless Chromium, and what tests do with it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from tests.workspace.conftest import SHAPE, T8, T9, make_case, phantom


class Page:
    """The page of one user with one case open."""

    def __init__(self, browser, server, case, user="ada"):
        self.context = browser.new_context(viewport={"width": 1440, "height": 900})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.faults = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.case = case
        self.page.goto(f"{server.addresses[user]}#{case}")
        self.ready()

    def ready(self):
        self.page.wait_for_selector(f"body[data-ready={self.case}]")

    def reload(self):
        self.page.reload()
        self.ready()

    def close(self):
        self.context.close()
        assert self.faults == []

    def js(self, expression, argument=None):
        return self.page.evaluate(expression, argument)

    def place(self, cut, voxel):
        """Where a voxel lies on the screen, after the cut is brought to its slice."""
        x, y = self.js(
            """([name, voxel]) => {
              const { view } = fluoronavWorkspace;
              const cut = view.cuts.cuts.find((c) => c.name === name);
              const point = view.grid.point(voxel);
              view.cuts.setCross(point);
              const { left, top } = cut.box.getBoundingClientRect();
              const [x, y] = cut.viewport.worldToCanvas(point);
              return [left + x, top + y];
            }""",
            [cut, [float(v) for v in voxel]],
        )
        return x, y

    def click(self, cut, voxel):
        self.page.mouse.click(*self.place(cut, voxel))

    def stroke(self, cut, first, last=None):
        """Draws from one voxel to another, and waits until the server has it."""
        self.page.mouse.move(*self.place(cut, first))
        self.page.mouse.down()
        if last is not None:
            x, y = self.js(
                """([name, voxel]) => {
                  const { view } = fluoronavWorkspace;
                  const cut = view.cuts.cuts.find((c) => c.name === name);
                  const { left, top } = cut.box.getBoundingClientRect();
                  const [x, y] = cut.viewport.worldToCanvas(view.grid.point(voxel));
                  return [left + x, top + y];
                }""",
                [cut, [float(v) for v in last]],
            )
            self.page.mouse.move(x, y, steps=8)
        self.page.mouse.up()
        self.settled()

    def settled(self):
        self.js("() => fluoronavWorkspace.view.session.waiting")

    def labels(self, shape=SHAPE):
        """The page's label map (z, y, x)."""
        return np.array(self.js("() => Array.from(fluoronavWorkspace.view.session.labels)"), np.uint16).reshape(shape)

    def tool(self, name, **settings):
        self.js(
            "([name, settings]) => { const { tools } = fluoronavWorkspace; "
            "for (const [k, v] of Object.entries(settings)) tools.set(k, v); tools.choose(name); }",
            [name, settings],
        )

    def choose(self, label):
        self.page.click(f"[data-structure='{label}'] b")

    def answer(self, *buttons):
        """Presses these buttons of the dialogs, one after the other."""
        for text in buttons:
            self.page.click(f"dialog button:has-text('{text}')")

    def save(self):
        self.page.click("#save")
        self.page.wait_for_selector("#message:not([hidden])")
        return self.page.inner_text("#message span")


@pytest.fixture
def opened(browser, server):
    """Opens pages; they are closed at the end, and no script of theirs may have failed."""
    pages = []

    def open_one(case, user="ada"):
        pages.append(Page(browser, server, case, user))
        return pages[-1]

    yield open_one
    for page in pages:
        page.close()


@pytest.fixture
def page(opened, case):
    return opened(case)


def saved(server, case):
    """The newest label map as SimpleITK reads it: what other programs get."""
    return sitk.ReadImage(str(server.root / case / "labels.nii.gz"))


def oriented_case(root, name, direction):
    """A case whose CT has a direction of its own; otherwise as `make_case`."""
    folder = make_case(root, name)
    hounsfield, labels = phantom()
    for voxels, file in ((hounsfield, "ct.nrrd"), (labels, "drawn.nrrd")):
        out = sitk.GetImageFromArray(voxels)
        out.SetSpacing((1.5, 1.25, 3.0))
        out.SetDirection([float(x) for x in np.asarray(direction).ravel()])
        sitk.WriteImage(out, str(folder / file))
    return folder


__all__ = ["SHAPE", "T8", "T9", "oriented_case", "saved", "yaml"]
