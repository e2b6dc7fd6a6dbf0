"""Fixtures of all tests: the embedded case, a camera, and the real data beside the checkout."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import yaml
import zmq

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.paths import embedded_case, shipped

# No deadline: test machines are noisy. New examples are looked for on a developer's machine, not in CI.
hypothesis.settings.register_profile(
    "fluoronav", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], max_examples=60,
    derandomize=bool(os.environ.get("CI")),
)  # fmt: skip
hypothesis.settings.load_profile("fluoronav")

ROOT = Path(__file__).parents[1]

# What a failed test leaves is collected in any order: a context would wait for ever for a socket that comes after it.
zmq.Context.__del__ = lambda context: None


@pytest.fixture(scope="session")
def case():
    return load_case("embedded")


@pytest.fixture(scope="session")
def camera():
    return Camera.load(shipped("calibration/demo-carm.yaml"))


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real CT and X-ray images beside the checkout; without it the test is skipped."""
    import os

    folder = Path(os.environ.get("FLUORONAV_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: it holds the real CT and X-ray images")
    return folder


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; one for all folders, since Playwright's loop runs once in a process."""
    import os

    from fluoronav.lab.bench.chromium import FLAGS, find_chromium

    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    chromium = find_chromium()
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed")
        pytest.skip("Chromium is not installed")
    # Tests hear what a surgeon hears after the first touch.
    flags = [*FLAGS, "--autoplay-policy=no-user-gesture-required"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def rng():
    return np.random.default_rng(20261124)


def another_case(folder):
    """The embedded case under another name and with one planned path, in `folder`/another; returns its file."""
    source = embedded_case().parent
    content = yaml.safe_load((source / "case.yaml").read_text())
    content["name"] = "another"
    content["plan"] = content["plan"][:1]
    for key in ("ct", "labels", "surroundings"):
        if content.get(key):
            content[key] = str(source / content[key])
    (folder / "another").mkdir()
    path = folder / "another" / "case.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
