"""A navigation display in 30 lines, written from docs/wire-protocol.md alone. Needs pyzmq and msgpack.

python display.py [--overlays 300] [--endpoint tcp://127.0.0.1:5551]
"""

import argparse
import time

import msgpack
import zmq

parser = argparse.ArgumentParser()
parser.add_argument("--overlays", type=int, default=0, help="number of overlays to show; 0: until stopped")
parser.add_argument("--endpoint", default="tcp://127.0.0.1:5551")
a = parser.parse_args()

socket = zmq.Context().socket(zmq.SUB)
socket.connect(a.endpoint)
for kind in ("overlay/", "alert/", "health/"):
    socket.subscribe(kind)
shown = 0
while not a.overlays or shown < a.overlays:
    topic, header = socket.recv_multipart()[:2]
    m = msgpack.unpackb(header)
    if topic.startswith(b"overlay/"):
        shown += 1
        age = (time.time_ns() - m["t_acq"]) / 1e6
        near = ", ".join(f"{d['structure']} {d['distance_mm']:.1f} mm ({d['level']})" for d in m["distances"])
        print(
            f"frame {m['seq']}: {m['status']}, {age:.1f} ms old, dropped {sum(m['dropped'].values())}; {near}",
            flush=True,
        )
    elif topic.startswith(b"alert/"):
        print(f"ALERT {m['priority']} {m['state']}: {m['text']}", flush=True)
    else:
        print(f"pipeline {m['state']}", flush=True)
