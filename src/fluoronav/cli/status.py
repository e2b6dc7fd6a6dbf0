"""`fluoronav status`."""

from __future__ import annotations

import argparse
from typing import Any

from fluoronav.cli.arguments import add_verb, endpoint, positive
from fluoronav.cli.reporting import say


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    status = add_verb(
        verbs,
        "status",
        "ask a running pipeline for its state; exit status 0 when it is ready or running",
        _status,
        "fluoronav status",
        "fluoronav status --endpoint tcp://192.168.0.7:5552 --timeout 5",
    )
    status.add_argument(
        "--endpoint", type=endpoint, default="tcp://127.0.0.1:5552", help="ZeroMQ endpoint of the pipeline's requests"
    )
    status.add_argument("--timeout", type=positive, default=2.0, help="time to wait for the answer, s")


def _status(options: argparse.Namespace) -> int:
    reply = _reply(options.endpoint, options.timeout)
    if reply is None:
        say(f"no answer from {options.endpoint} within {options.timeout:g} s: is `fluoronav run` running?")
        return 1
    if not reply["ok"]:
        say(f"{options.endpoint} refuses to say: {reply['error']['text']}")
        return 1
    health = reply["result"]
    f, ms = health["frames"], health["latency_ms"]
    print(
        f"{health['state']}: case {health['case'] or 'not loaded'}, {health['fps_out']:.1f} overlays a second, latency "
        f"p50 {ms['p50']:.1f} p99 {ms['p99']:.1f} ms; {f['processed']} processed, {f['network']} lost, "
        f"{f['overload']} skipped, {f['invalid']} invalid"
    )
    return 0 if health["state"] in ("ready", "running") else 1


def _reply(endpoint: str, timeout_s: float) -> dict[str, Any] | None:
    import msgpack
    import zmq

    from fluoronav.wire import encode, make_request

    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        socket.send(encode(make_request("status", user="status")))
        return msgpack.unpackb(socket.recv()) if socket.poll(round(timeout_s * 1000)) else None
