"""A frame grabber in 30 lines, written from docs/wire-protocol.md alone. Needs pyzmq, msgpack and NumPy.

python grabber.py [--frames 300] [--fps 30] [--size 1024] [--endpoint tcp://127.0.0.1:5550]
"""

import argparse
import time

import msgpack
import numpy as np
import zmq

parser = argparse.ArgumentParser()
parser.add_argument("--frames", type=int, default=300)
parser.add_argument("--fps", type=float, default=30)
parser.add_argument("--size", type=int, default=1024)
parser.add_argument("--endpoint", default="tcp://127.0.0.1:5550")
a = parser.parse_args()

socket = zmq.Context().socket(zmq.PUB)
socket.setsockopt(zmq.SNDBUF, 4 << 20)  # room for a frame, so that it is sent at once
socket.bind(a.endpoint)
time.sleep(1)  # subscribers connect in the background
row = np.linspace(2000, 50000, a.size)  # put your frame grabber's picture here
for seq in range(a.frames):
    image = np.tile(np.roll(row, 8 * seq), (a.size, 1)).astype("<u2")
    header = {"v": 1, "source": "carm0", "seq": seq, "t_acq": time.time_ns(),
              "rows": a.size, "cols": a.size, "dtype": "u2", "bits": 16}  # fmt: skip
    socket.send_multipart([b"frame/carm0", msgpack.packb(header), image], copy=False)
    time.sleep(1 / a.fps)
