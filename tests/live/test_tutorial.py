"""Every command of docs/tutorial.md runs, in order, in an empty folder."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.recording import read_recording
from tests.conftest import ROOT

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
PORTS = {"frames": 5550, "out": 5551, "requests": 5552, "tools": 5553}
TIMEOUT_S = 400
# The tutorial uses the default endpoints; these programs take free ones instead.
FLUORONAV = """#!/bin/sh
case $1 in
  simulate | replay) set -- "$@" --frames-endpoint {frames} --tools-endpoint {tools} ;;
  status) set -- "$@" --endpoint {requests} ;;
  display) set -- "$@" --port 0 ;;
esac
exec "{python}" -m fluoronav "$@"
"""
PYTHON = """#!/bin/sh
case $1 in
  *confirm.py) set -- "$@" --endpoint {requests} ;;
  *display.py) set -- "$@" --endpoint {out} ;;
esac
exec "{python}" "$@"
"""


def script(endpoints):
    """The blocks of shell commands, with endpoints that nobody uses."""
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```$", TUTORIAL, re.M | re.S))
    for name, port in PORTS.items():
        text = text.replace(f"tcp://127.0.0.1:{port}", endpoints[name])
    text = text.replace("18944", free_endpoints("tcp", Path())["frames"].rpartition(":")[2])
    return "set -euo pipefail\n" + text


def programs(folder, endpoints):
    folder.mkdir()
    for name, content in (("fluoronav", FLUORONAV), ("python", PYTHON)):
        (folder / name).write_text(content.format(python=sys.executable, **endpoints))
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_every_command_of_the_tutorial_runs(tmp_path):
    pytest.importorskip("aiohttp")
    pytest.importorskip("pyigtl")
    endpoints = free_endpoints("tcp", tmp_path)
    environment = os.environ | {"PATH": programs(tmp_path / "bin", endpoints), "FLUORONAV": str(ROOT)}
    work = tmp_path / "work"
    work.mkdir()
    with (tmp_path / "log.txt").open("w+") as log:
        shell = subprocess.Popen(
            ["bash", "-c", script(endpoints)], cwd=work, env=environment, stdin=subprocess.PIPE, stdout=log,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            shell.communicate("yes\n", timeout=TIMEOUT_S)
        finally:
            end(shell)
        log.seek(0)
        said = log.read()
    assert shell.returncode == 0, said[-3000:]
    assert json.loads((work / "pose.json").read_text())["accepted"]
    assert "running: case my-patient@" in said
    assert "confirmed" in said and "control: http://" in said and "tool messages sent" in said
    assert "CameraToPatient, RAS, mm:" in said and "exposure to overlay: median" in said  # researcher, engineer
    assert said.count("frame ") > 15  # the vendor's display
    head, messages = read_recording(work / "first.mcap")
    assert head["source"] == "carm0" and sum(parts[0].startswith(b"overlay/") for _, parts in messages) > 20


def end(shell):
    """Stops the shell and what it started in the background."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(shell.pid, number)
            shell.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
