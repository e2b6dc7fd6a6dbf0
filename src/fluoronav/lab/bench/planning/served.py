"""The workspace's server as a process of its own, and a headless Chromium that opens its page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluoronav.lab.bench.chromium import FLAGS, SIZE, find_chromium
from fluoronav.lab.process import end_process


@contextmanager
def served(cases: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The address of the page of a case store, and what opens a tab in the browser; both end with the block.

    Raises
    ------
    OSError
        Chromium is not installed.
    """
    from playwright.sync_api import sync_playwright

    chromium = find_chromium()
    if chromium is None:
        raise OSError("Chromium is not installed: apt-get install chromium")
    command = [
        sys.executable, "-m", "fluoronav", "workspace", "--cases", str(cases), "--user", "bench", "--port", "0"
    ]  # fmt: skip
    with sync_playwright() as playwright:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[1]
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            yield address, lambda: browser.new_page(viewport={"width": SIZE["width"], "height": SIZE["height"]})
        finally:
            end_process(server)
