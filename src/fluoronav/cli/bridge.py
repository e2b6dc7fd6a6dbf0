"""`fluoronav bridge igtl`."""

from __future__ import annotations

import argparse
from typing import Any

from fluoronav.cli.arguments import add_family, add_launch, add_verb, endpoint, host_and_port, port, positive
from fluoronav.cli.reporting import missing_extra, summary
from fluoronav.process_end import until_stopped


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(
        verbs, "bridge", "translate to and from another protocol", "fluoronav bridge igtl --serve 18944"
    )
    igtl = add_verb(
        family,
        "igtl",
        "publish the TRANSFORM and TDATA messages of an OpenIGTLink server (PLUS, a tracker) as tool/*, or, with "
        "--serve, send IMAGE, TRANSFORM, POLYDATA and STRING to 3D Slicer (extra `igtl`)",
        _igtl,
        "fluoronav bridge igtl --tracker 192.168.0.5:18944 --tool StylusToTracker=kwire",
        "fluoronav bridge igtl --serve 18944 --launch launch/demo.yaml",
    )
    slicer = igtl.add_argument_group("to 3D Slicer")
    slicer.add_argument(
        "--serve", type=port, metavar="PORT",
        help="serve the messages of a running pipeline at this port, for example 18944; 0 takes any free port",
    )  # fmt: skip
    add_launch(slicer)
    slicer.add_argument(
        "--interface",
        help="network interface to serve at, for example eth0, or its address; by default this computer alone",
    )
    tracker = igtl.add_argument_group("from a tracker")
    tracker.add_argument(
        "--tracker",
        type=host_and_port,
        default="127.0.0.1:18944",
        metavar="HOST:PORT",
        help="address of the OpenIGTLink server",
    )
    tracker.add_argument(
        "--tool",
        nargs="+",
        default=[],
        metavar="DEVICE=ID",
        help="tool id of each device, for example StylusToTracker=kwire",
    )
    tracker.add_argument("--error-mm", type=positive, default=0.3, help="error of the tracker, 1 sigma, mm")
    tracker.add_argument("--source", default="igtl", help="name under which the tools are published")
    tracker.add_argument("--endpoint", type=endpoint, default="tcp://127.0.0.1:5553", help="ZeroMQ endpoint to bind")


def _igtl(options: argparse.Namespace) -> None:
    if options.serve is None:
        from_where, bridge = _tracker_bridge(options)
    else:
        from_where, bridge = _slicer_server(options)
    stop = until_stopped()
    print(from_where, flush=True)
    bridge.run(stop.is_set)
    bridge.close()
    print(summary(bridge.counts))


def _slicer_server(options: argparse.Namespace) -> tuple[str, Any]:
    try:
        from fluoronav.openigtlink.server import SlicerServer
    except ImportError as error:
        raise missing_extra("igtl", error) from error
    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.site.launch import load_launch

    launch = load_launch(options.launch)
    server = SlicerServer(
        launch.endpoints.out, launch.endpoints.frames, Camera.load(launch.camera), load_case(launch.case),
        options.serve, options.interface,
    )  # fmt: skip
    return f"serving OpenIGTLink at {server.host}:{server.port}", server


def _tracker_bridge(options: argparse.Namespace) -> tuple[str, Any]:
    from fluoronav.openigtlink.devices import tool_ids
    from fluoronav.openigtlink.tracker import TrackerBridge

    host, number = options.tracker
    bridge = TrackerBridge(host, number, options.endpoint, options.source, tool_ids(options.tool), options.error_mm)
    return f"publishing tool/{options.source} at {options.endpoint} from {host}:{number}", bridge
