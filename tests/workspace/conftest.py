"""A case store with small cases, and a server in a process of its own."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import SimpleITK as sitk
import yaml

pytest.importorskip("aiohttp", reason="the extra `planning` is not installed")

SHAPE = (12, 40, 36)  # z, y, x
T8, T9, CORD, LESION = 36, 35, 79, 300
USERS = ("ada", "ben")
RUN = np.dtype([("first", "<u4"), ("count", "<u4"), ("before", "<u2"), ("after", "<u2")])


def phantom(shape=SHAPE):
    """HU and labels of a body with two vertebrae and a cord; nothing in it is symmetric."""
    hounsfield = np.full(shape, -1000, np.int16)
    hounsfield[:, 3:-3, 3:-3] = 40
    labels = np.zeros(shape, np.uint8)
    third = shape[0] // 3
    labels[1:third, 10:20, 12:24] = T8
    labels[third + 1 : 2 * third, 10:20, 11:23] = T9
    labels[1:-1, 24:27, 16:19] = CORD
    hounsfield[np.isin(labels, (T8, T9))] = 400
    hounsfield[2, 12, 14] = 1200
    return hounsfield, labels


def image(voxels, spacing=(1.5, 1.25, 3.0), origin=(-20.0, 31.5, -200.0)):
    out = sitk.GetImageFromArray(voxels)
    out.SetSpacing(spacing)
    out.SetOrigin(origin)
    out.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))  # left-handed, as some NIfTI files are
    return out


def make_case(root, name, *, labels=True, shape=SHAPE, voxels=None):
    """A case as intake leaves it, with or without a label map."""
    folder = root / name
    folder.mkdir(parents=True)
    hounsfield, drawn = phantom(shape)
    sitk.WriteImage(image(hounsfield), str(folder / "ct.nrrd"))
    case = {"name": name, "ct": "ct.nrrd", "prior": {"isocentre_ct": [0, 0, -190], "source_to_isocentre_mm": 620.0}}
    if labels:
        sitk.WriteImage(image(drawn if voxels is None else voxels), str(folder / "drawn.nrrd"))
        case |= {"labels": "drawn.nrrd", "structures": [{"name": "vertebrae_T8", "label": T8}]}
    (folder / "case.yaml").write_text(yaml.safe_dump(case))
    return folder


class Server:
    """`fluoronav workspace` as a process."""

    def __init__(self, root, users=USERS, **environment):
        self.root, self.users, self.environment = Path(root), users, environment
        self.start()

    def start(self):
        options = [x for u in self.users for x in ("--user", u)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fluoronav", "workspace", "--cases", str(self.root), "--port", "0", *options],
            stdout=subprocess.PIPE, text=True, env=os.environ | self.environment,
        )  # fmt: skip
        self.addresses = {}
        for _ in self.users:
            user, address = re.fullmatch(r"(\S+): (\S+)", self.process.stdout.readline().strip()).groups()
            self.addresses[user] = address
        self.url, self.keys = address.split("/?")[0], {u: a.split("key=")[1] for u, a in self.addresses.items()}

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(60) == 0
        self.process.stdout.close()

    def client(self, user="ada"):
        return httpx.Client(base_url=f"{self.url}/api", headers={"X-Key": self.keys[user]}, timeout=120)


class Editor:
    """A page, as far as the API is concerned: it keeps its own label map, and follows every delta."""

    def __init__(self, server, case, user="ada"):
        self.server, self.user, self.case = server, user, case
        self.http, self.at = server.client(user), f"/cases/{case}"
        self.http.get(self.at).raise_for_status()
        self.open()

    def open(self, **body):
        answer = self.http.post(f"{self.at}/session", json=body)
        assert answer.status_code == 200, answer.text
        self.state = answer.json()
        self.load()
        return self.state

    def load(self):
        answer = self.http.get(f"{self.at}/session/labels")
        assert answer.status_code == 200, answer.text
        self.labels = np.frombuffer(answer.content, answer.headers["X-Dtype"]).astype(np.uint16)
        assert int(answer.headers["X-Sequence"]) == self.state["sequence"]

    def delta(self, at, label):
        """The delta that gives some voxels a label."""
        at = np.unique(np.asarray(at, np.int64))
        at = at[self.labels[at] != label]
        runs = np.zeros(at.size, RUN)
        runs["first"], runs["count"], runs["before"], runs["after"] = at, 1, self.labels[at], label
        return runs

    def stroke(self, at, label, what="brush"):
        runs = self.delta(at, label)
        answer = self.send(runs, what)
        assert answer.status_code == 200, answer.text
        self.state = answer.json()
        self.labels[runs["first"]] = label

    def send(self, runs, what="brush", sequence=None):
        sequence = self.state["sequence"] if sequence is None else sequence
        return self.http.post(f"{self.at}/session/steps?sequence={sequence}&what={what}", content=runs.tobytes())

    def ask(self, verb, **body):
        """Undo, redo, an operation, or saving: follows what it changes; the answer."""
        if verb != "save":
            body["sequence"] = self.state["sequence"]
        answer = self.http.post(f"{self.at}/session/{verb}", json=body)
        if answer.status_code == 200:
            head, runs = unpacked(answer.content)
            for run in runs:
                part = self.labels[run["first"] : run["first"] + run["count"]]
                assert (part == run["before"]).all()
                part[:] = run["after"]
            self.state = head
        return answer

    def do(self, operation, **body):
        answer = self.ask("operations", operation=operation, **body)
        assert answer.status_code == 200, answer.text
        return answer

    def voxels(self, shape=SHAPE):
        return self.labels.reshape(shape)


def unpacked(content):
    (length,) = struct.unpack_from("<I", content)
    return json.loads(content[4 : 4 + length]), np.frombuffer(content[4 + length :], RUN)


def index(z, y, x, shape=SHAPE):
    return (np.asarray(z) * shape[1] + np.asarray(y)) * shape[2] + np.asarray(x)


def until(condition, seconds=120.0, what="it"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.03)
    raise AssertionError(f"{what} did not happen within {seconds} s")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for all tests that do not end it."""
    running = Server(tmp_path_factory.mktemp("cases"))
    yield running
    running.stop()


@pytest.fixture
def case(server, request):
    """A case of its own for each test."""
    name = f"P{abs(hash(request.node.nodeid)) % 10**12}"
    make_case(server.root, name)
    return name
