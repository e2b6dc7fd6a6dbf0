"""A real pipeline process on free endpoints with a small camera, a sender and a listener."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
import yaml
import zmq

from fluoronav.geometry import Camera
from fluoronav.lab.simulation.rig import free_endpoints
from fluoronav.paths import shipped
from fluoronav.wire import make_request
from tests.warm import WarmCommand

SIZE = 256


class Pipeline:
    """`fluoronav run`, and everything that it sends; forked warm, or started as a program where `cold`."""

    def __init__(self, folder, endpoints=None, *, cold=False, **launch):
        self.cold = cold
        small = Camera.load(shipped("calibration/demo-carm.yaml")).scaled(SIZE / 1024)
        camera = folder / "camera.yaml"
        camera.write_text(yaml.safe_dump({"rows": small.rows, "cols": small.cols, "K": small.K.tolist()}))
        self.endpoints = free_endpoints("tcp", folder) | (endpoints or {})
        self.path = folder / "launch.yaml"
        content = {"case": "embedded", "camera": "camera.yaml", "endpoints": self.endpoints, "audit": "audit"} | launch
        self.path.write_text(yaml.safe_dump(content))
        self.context = zmq.Context()
        self.pub = self.socket(zmq.PUB)
        self.pub.bind(self.endpoints["frames"])
        self.tools = self.socket(zmq.PUB)
        self.tools.bind(self.endpoints["tools"])
        self.sub = self.socket(zmq.SUB)
        self.sub.connect(self.endpoints["out"])
        self.sub.subscribe("")
        self.heard, self.lock, self.ending = [], threading.Lock(), threading.Event()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        self.log = (folder / "log.txt").open("w+")
        self.start()
        self.seq = 1000
        self.image = (8000 + 6000 * np.random.default_rng(0).random((SIZE, SIZE))).astype("<u2")

    def start(self):
        arguments = ["run", str(self.path)]
        if self.cold:
            self.process = subprocess.Popen([sys.executable, "-m", "fluoronav", *arguments], stderr=self.log)
        else:
            self.process = WarmCommand(arguments, self.path.parent / "printed.txt", Path(self.log.name))

    def start_again(self):
        """After its process has ended."""
        with self.lock:
            self.heard.clear()
        self.start()
        return self.ready()

    def socket(self, kind):
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        return socket

    def _listen(self):
        while not self.ending.is_set():
            if self.sub.poll(50):
                topic, header, *payload = self.sub.recv_multipart()
                message = msgpack.unpackb(header)
                if payload:
                    message["payload"] = payload[0]
                with self.lock:
                    self.heard.append((time.time_ns(), topic.split(b"/")[0].decode(), message))

    def messages(self, kind, since=0):
        with self.lock:
            return [m for t, k, m in self.heard if k == kind and t >= since]

    def wait(self, condition, seconds=120.0, what="what was waited for"):
        """Until a condition holds; the real thing has no faster way to tell."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            result = condition()
            if result:
                return result
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.log.flush()
        self.log.seek(0)
        pytest.fail(f"{what} did not happen; the pipeline said: {self.log.read()[-800:]}")

    def ready(self):
        self.wait(lambda: [h for h in self.messages("health") if h["state"] != "starting"], 300, "readiness")
        time.sleep(0.5)  # subscriptions
        return self

    def header(self, **change):
        header = {"v": 1, "source": "carm0", "seq": self.seq, "t_acq": time.time_ns(), "rows": SIZE, "cols": SIZE,
                  "dtype": "u2", "bits": 16} | change  # fmt: skip
        return {k: v for k, v in header.items() if v is not ...}

    def send_raw(self, header, payload=None):
        body = header if isinstance(header, bytes) else msgpack.packb(header)
        if payload is None:
            payload = self.picture(self.seq)
        self.pub.send_multipart([b"frame/carm0", body, payload])

    def picture(self, seq):
        """What the frame of a number shows: noise that never repeats itself."""
        return np.roll(self.image, seq, axis=0)

    def frame(self):
        """One good frame; returns its overlay."""
        self.seq += 1
        seq = self.seq
        self.send_raw(self.header())
        return self.wait(lambda: [o for o in self.messages("overlay") if o["seq"] == seq], 60, f"overlay {seq}")[0]

    def invalid(self):
        """Invalid messages by field, as of a health message that is sent from now on."""
        now = time.time_ns()
        return self.wait(lambda: self.messages("health", now + 50_000_000), 60, "health")[-1]

    def ask(self, body):
        """The reply to these bytes."""
        socket = self.socket(zmq.REQ)
        socket.connect(self.endpoints["requests"])
        socket.send(body)
        assert socket.poll(60000), f"no reply to {body[:80]}"
        reply = msgpack.unpackb(socket.recv())
        socket.close()
        return reply

    def request(self, op, **args):
        request = make_request(op, args, "tester")
        reply = self.ask(msgpack.packb(request))
        assert reply["id"] == request["id"]
        return reply

    def confirm(self):
        """A person says that this is the patient."""
        assert self.request("case.confirm", case=self.request("status")["result"]["case"])["ok"]
        return self

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.ending.set()
        self.listener.join()
        for socket in (self.pub, self.tools, self.sub):
            socket.close()
        self.context.term()
        self.log.close()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    pipeline = Pipeline(tmp_path_factory.mktemp("live")).ready()
    yield pipeline
    pipeline.close()
