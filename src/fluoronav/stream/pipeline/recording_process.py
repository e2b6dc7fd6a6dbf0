"""The recorder beside the pipeline: a process of its own, so that no disk holds up a frame."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import yaml

from fluoronav.paths import private_folder, private_opener
from fluoronav.site.launch import LaunchFile


class RecordingProcess:
    """`fluoronav record`, started and ended on request.

    Parameters
    ----------
    launch : LaunchFile
    """

    def __init__(self, launch: LaunchFile) -> None:
        self._launch = launch
        self._process: subprocess.Popen[str] | None = None
        self._ending = False
        self.path: Path | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and not self._ending

    def start(self) -> Path:
        """Begins a recording; returns its file.

        Raises
        ------
        OSError
            The folder cannot be written.
        """
        folder = self._launch.recordings_folder
        private_folder(folder)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = f"{re.sub('[^A-Za-z0-9_-]', '_', self._launch.source)}-{stamp}"
        number = sum(1 for _ in folder.glob(f"{name}*.mcap"))
        path = folder / (f"{name}-{number}.mcap" if number else f"{name}.mcap")
        # What ran then: case, camera and endpoints, for whoever opens the recording.
        launch = path.with_suffix(".launch.yaml")
        with open(launch, "w", encoding="utf-8", opener=private_opener) as file:
            yaml.safe_dump(self._launch.model_dump(mode="json"), file)
        # Its standard input is a pipe that nobody writes to: it closes with this process, however that ends.
        command = [sys.executable, "-m", "fluoronav", "record", str(launch), "--out", str(path)]
        self._process = subprocess.Popen(
            [*command, "--until-input-ends"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._ending, self.path = False, path
        return path

    def stop(self) -> None:
        """Tells it to end; :meth:`fault` sees to the rest."""
        if self._process is not None and not self._ending:
            self._ending = True
            self._process.terminate()

    def fault(self) -> str | None:
        """Looks after it; returns why it has ended by itself, once, and otherwise None."""
        process = self._process
        if process is None or process.poll() is None:
            return None
        said = process.stderr.read().strip().splitlines() if process.stderr else []
        for pipe in (process.stdin, process.stderr):
            if pipe:
                pipe.close()
        expected, self._process, self._ending = self._ending, None, False
        if expected and self.path is not None and self.path.is_file():
            return None
        if expected:
            return f"the recording {self.path} was ended before it had begun: there is no file"
        return f"the recording {self.path} has ended: {said[-1] if said else f'exit {process.returncode}'}"

    def close(self) -> None:
        """Ends it and waits for its file to be whole."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                self._process.kill()
