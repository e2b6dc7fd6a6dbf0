"""Confirms the patient that a pipeline has loaded, written from docs/wire-protocol.md alone. Needs pyzmq and msgpack.

python confirm.py --user NAME [--endpoint tcp://127.0.0.1:5552]
"""

import argparse
import time
import uuid

import msgpack
import zmq

parser = argparse.ArgumentParser()
parser.add_argument("--user", required=True, help="who has looked at the patient")
parser.add_argument("--endpoint", default="tcp://127.0.0.1:5552")
a = parser.parse_args()

socket = zmq.Context().socket(zmq.REQ)
socket.connect(a.endpoint)


def ask(op, **args):
    request = {"v": 1, "id": uuid.uuid4().hex, "t": time.time_ns(), "op": op, "args": args, "user": a.user}
    socket.send(msgpack.packb(request))
    reply = msgpack.unpackb(socket.recv())
    return reply["result"] if reply["ok"] else exit(reply["error"]["text"])


case = ask("status")["case"]
if input(f"Is {case} the patient on the table? yes or no: ") == "yes":
    ask("case.confirm", case=case)
    print("confirmed")
