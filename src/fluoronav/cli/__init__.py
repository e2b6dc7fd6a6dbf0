"""``fluoronav <verb>``: the one way to run each thing."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from fluoronav import __version__
from fluoronav.paths import shipped, write_json

_DESCRIPTION = """\
Live fluoroscopy in, surgical guidance out, inside one frame period.

  fluoronav demo                               the whole loop on a real CT, with a picture and a report
  fluoronav run launch/demo.yaml               the pipeline, until SIGTERM or Ctrl-C
  fluoronav simulate embedded --fps 30         a simulated C-arm that feeds it
  fluoronav bench latency --fps 30             exposure to overlay, measured

Lengths are in mm, angles in degrees, times in the unit that their name ends with.
"""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    pass


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 10_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 10,000,000")
    return value


def _size(text: str) -> int:
    value = int(text)
    if not 128 <= value <= 4096:
        raise argparse.ArgumentTypeError(f"{text} is not between 128 and 4096")
    return value


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return host, int(port)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to 65535")
    return int(text)


def _bone(text: str) -> int | Path:
    return _count(text) if text.isdigit() else Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fluoronav", description=_DESCRIPTION, formatter_class=_Formatter)
    parser.add_argument("--version", action="version", version=f"fluoronav {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")

    def verb(name: str, text: str, run, under=verbs) -> argparse.ArgumentParser:
        sub = under.add_parser(name, help=text, description=text, formatter_class=_Formatter)
        sub.set_defaults(run=run)
        return sub

    demo = verb("demo", "run the whole loop on the embedded case and leave a picture and a report", _demo)
    demo.add_argument("--seconds", type=_positive, default=20.0, help="how long to stream, s")
    demo.add_argument("--out", type=Path, default=Path("out"), help="folder for what it leaves")
    demo.add_argument("--no-display", action="store_true", help="only write files, serve no page")
    demo.add_argument("--port", type=int, default=8765, help="port of the navigation display; 0 for any that is free")

    run = verb("run", "run the pipeline described by a launch file, until SIGTERM or Ctrl-C", _run)
    run.add_argument("launch", type=Path, help="launch file (YAML), for example launch/demo.yaml")

    simulate = verb("simulate", "be a C-arm: render a case's frames ahead, then publish them with a tracker", _simulate)
    simulate.add_argument("case", help="`embedded`, a case.yaml or its folder")
    simulate.add_argument(
        "--camera", type=Path, default=shipped("calibration/demo-carm.yaml"), help="camera file (YAML)"
    )
    rate = simulate.add_argument_group("what to send")
    rate.add_argument("--fps", type=_positive, default=30.0, help="frames a second")
    rate.add_argument("--frames", type=_count, default=0, help="how many frames; 0 goes on until stopped")
    rate.add_argument("--bits", type=int, default=16, choices=range(8, 17), metavar="8..16", help="bits stored")
    rate.add_argument("--photons", type=_positive, default=80.0, help="mean detected photons a pixel (the dose)")
    rate.add_argument("--source", default="carm0", help="name under which the frames are published")
    _add_field(simulate)
    where = _add_endpoints(simulate)
    where.add_argument("--truth", type=Path, help="write the true poses here, one JSON object a line")
    simulate.add_argument("--quiet", action="store_true", help="print nothing")

    case = verbs.add_parser("case", help="work on case files").add_subparsers(dest="what", required=True)
    build = verb(
        "build", "load a case, compute and cache its distance fields, and say what is in it", _case_build, case
    )
    build.add_argument("case", help="`embedded`, a case.yaml or its folder")

    register = verb(
        "register",
        "register a CT to one image, or to several of one moment, and write the pose of each view",
        _register,
    )
    what = register.add_argument_group("what to register")
    what.add_argument("--volume", type=Path, required=True, help="CT: DICOM folder, NRRD or NIfTI")
    what.add_argument("--image", type=Path, nargs="+", required=True, help="TIFF, PNG or DICOM frames, one per view")
    what.add_argument(
        "--camera", type=Path, nargs="+", default=[], help="camera files, in the images' order; DICOM has its own"
    )
    what.add_argument("--frame", type=_count, default=1, help="which frame of a DICOM multi-frame image, from 1")
    what.add_argument(
        "--polarity",
        choices=("counts", "inverse"),
        help="whether the images' values rise (counts: bone dark) or fall (inverse: bone white) where there is more "
        "X-ray; by default as a DICOM header or the picture says",
    )
    what.add_argument("--series", metavar="UID", help="SeriesInstanceUID of the CT, where its folder holds several")
    what.add_argument("--labels", type=Path, help="label map of the CT, where only some bones move together")
    what.add_argument(
        "--bone",
        type=_bone,
        nargs="+",
        default=[],
        help="which: labels, or volumes that hold one bone each (CT of the same frame, air around the bone); several "
        "also get a pose each",
    )
    start = register.add_argument_group("where to start")
    start.add_argument(
        "--init",
        type=Path,
        help='JSON file {"T_camera_ct": 4 x 4} of the first view; without --auto within 10 deg and 10 mm',
    )
    start.add_argument(
        "--auto",
        action="store_true",
        help="the start (--init, or the DICOM header) may be 30 deg, 100 mm in the plane and 60 mm in depth wrong",
    )
    start.add_argument(
        "--orbit", action="store_true", help="like --auto, with the orbital angle unknown: AP to lateral, both sides"
    )
    register.add_argument("--json", type=Path, required=True, help="write the result here")
    register.add_argument("--overlay", type=Path, help="draw the model's outline on the first image (PNG)")

    calibrate = verbs.add_parser("calibrate", help="find what a case or camera file has to say").add_subparsers(
        dest="what", required=True
    )
    pivot = verb(
        "pivot",
        "find a tracked tool's tip in its marker's frame: stand the tip in a dimple and tilt the tool to all sides",
        _calibrate_pivot,
        calibrate,
    )
    pivot.add_argument("--tool", required=True, help="id under which the tracker reports it")
    pivot.add_argument("--seconds", type=_positive, default=15.0, help="how long to tilt it, s")
    pivot.add_argument(
        "--spin-seconds",
        type=float,
        default=0.0,
        help="then spin it about its shaft for so long, s: finds the axis, too",
    )
    pivot.add_argument("--endpoint", default="tcp://127.0.0.1:5553", help="where the tracker publishes tool/*")
    pivot.add_argument("--json", type=Path, default=Path("out/pivot.json"), help="write the result here")

    detector = verb(
        "detector",
        "measure a flat panel's offset, gain and dead pixels, for `detector` in the camera file",
        _calibrate_detector,
        calibrate,
    )
    detector.add_argument(
        "--dark", type=Path, nargs="+", required=True, help="frames without X-rays (TIFF, PNG), ten or more"
    )
    detector.add_argument("--flat", type=Path, nargs="+", required=True, help="frames of the open beam, ten or more")
    detector.add_argument("--out", type=Path, required=True, help="write the calibration here (.npz)")

    display = verb(
        "display",
        "the navigation display: a web page for any number of browsers, beside the pipeline or on another computer "
        "(extra `display`)",
        _display,
    )
    display.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 for other computers")
    display.add_argument("--port", type=int, default=8765, help="port to serve at; 0 for any that is free")
    display.add_argument(
        "--allowed-host", action="append", default=[], metavar="NAME",
        help="name under which browsers may ask for the page, besides its addresses and localhost; may be repeated",
    )  # fmt: skip

    record = verb(
        "record",
        "keep every frame, tool pose, overlay and alert in a file, beside a running pipeline; Ctrl-C ends it "
        "(2 MB a frame of 1024 x 1024)",
        _record,
    )
    for command in (display, record):
        command.add_argument(
            "launch", nargs="?", type=Path, default=None, help="launch file of the pipeline (default: the demo's)"
        )
    record.add_argument("--out", type=Path, required=True, help="write the recording here (MCAP); must not exist")
    record.add_argument("--seconds", type=_positive, default=None, help="for so long, s; else until Ctrl-C")
    record.add_argument(
        "--until-input-ends", action="store_true", help="end, too, when standard input is closed: with whoever began it"
    )

    replay = verb(
        "replay",
        "send a recording's frames and tool poses again, at the pace at which they came, as the C-arm and the tracker "
        "would: `fluoronav run` takes them for live",
        _replay,
    )
    replay.add_argument("recording", type=Path, help="a file of `fluoronav record` (.mcap, or an old .fnrec)")
    replay.add_argument("--speed", type=_positive, default=1.0, help="2 is twice as fast")
    replay.add_argument("--loop", action="store_true", help="again and again, until Ctrl-C")
    _add_endpoints(replay)

    audit = verbs.add_parser("audit", help="trails of who asked for what").add_subparsers(dest="what", required=True)
    verify = verb(
        "verify", "check that nobody has changed a trail; the folder is in the launch file", _audit_verify, audit
    )
    verify.add_argument("trails", type=Path, nargs="+", help="files, or folders that hold *.jsonl")

    bridge = verbs.add_parser("bridge", help="speak another protocol").add_subparsers(dest="what", required=True)
    igtl = verb(
        "igtl",
        "take the TRANSFORM and TDATA of an OpenIGTLink server (PLUS, a tracker) in as tool/*, or, with --serve, give "
        "IMAGE, TRANSFORM, POLYDATA and STRING to 3D Slicer (which needs the extra `igtl`)",
        _bridge_igtl,
        bridge,
    )
    igtl.add_argument(
        "--serve", type=_port, metavar="PORT",
        help="serve a running pipeline at this port, for example 18944; 0 for any that is free",
    )  # fmt: skip
    igtl.add_argument("--launch", type=Path, default=shipped("launch/demo.yaml"), help="the pipeline's launch file")
    igtl.add_argument(
        "--interface", help="network interface to serve at, for example eth0, or its address; else this computer alone"
    )
    igtl.add_argument("--tracker", type=_host_and_port, default="127.0.0.1:18944", help="the server, HOST:PORT")
    igtl.add_argument(
        "--tool", nargs="+", default=[], metavar="DEVICE=ID", help="tool ids, for example StylusToTracker=kwire"
    )
    igtl.add_argument("--error-mm", type=_positive, default=0.3, help="error of the tracker, 1 sigma, mm")
    igtl.add_argument("--source", default="igtl", help="name under which the tools are published")
    igtl.add_argument("--endpoint", default="tcp://127.0.0.1:5553", help="ZeroMQ endpoint to bind")

    engines = verbs.add_parser("engines", help="the networks' engines").add_subparsers(dest="what", required=True)
    build = verb(
        "build",
        "compile every network ahead of time for GPUs, into the cache; a start in the OR never compiles",
        _engines_build,
        engines,
    )
    build.add_argument(
        "--engine", choices=("tensorrt-rtx", "tensorrt"), default="tensorrt-rtx", help="for which runtime"
    )
    build.add_argument(
        "--target",
        nargs="+",
        default=["this"],
        help="compute capabilities such as sm89, `this` GPU, or `all` that TensorRT-RTX builds for without one",
    )
    build.add_argument("--case", help="also the registration step for this case: `embedded`, a case.yaml or its folder")
    verify = verb(
        "verify",
        "run every network on an engine and on the CPU: largest difference, latency and memory",
        _engines_verify,
        engines,
    )
    verify.add_argument("--engine", default="cpu", help="cpu, openvino, cuda, tensorrt or tensorrt-rtx")
    verify.add_argument(
        "--case", help="also the registration step for this case: `embedded`, a case.yaml or its folder"
    )
    for command in (build, verify):
        command.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="of the networks on a GPU")
    verify.add_argument("--json", type=Path, default=Path("out/engines.json"), help="write the figures here")

    status = verb("status", "ask a running pipeline how it is; exit 0 when it is ready or running", _status)
    status.add_argument("--endpoint", default="tcp://127.0.0.1:5552", help="the pipeline's request endpoint")
    status.add_argument("--timeout", type=_positive, default=2.0, help="s")

    bench = verbs.add_parser("bench", help="measure").add_subparsers(dest="what", required=True)
    latency = verb(
        "latency", "grabber, pipeline and subscriber as processes: exposure to overlay", _bench_latency, bench
    )
    latency.add_argument("--fps", type=_positive, default=30.0, help="frames a second")
    latency.add_argument("--frames", type=_count, default=3000, help="how many")
    latency.add_argument("--size", type=_size, default=1024, help="pixels along a side")
    latency.add_argument("--transport", choices=("tcp", "ipc"), default="tcp")
    latency.add_argument("--launch", type=Path, default=shipped("launch/demo.yaml"), help="launch file (YAML)")
    latency.add_argument(
        "--stages", nargs="+", metavar="STAGE",
        help="not the launch file's but these: attenuation registration detection instruments guidance view",
    )  # fmt: skip
    _add_field(latency)
    latency.add_argument("--json", type=Path, default=Path("out/latency.json"), help="write the figures here")
    latency.add_argument("--png", type=Path, help="draw the histogram here; beside the JSON by default")
    registration = verb(
        "registration",
        "search, tracking and confidence on real CTs with known poses, and on real wrist X-rays; takes many minutes",
        _bench_registration,
        bench,
    )
    registration.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds chest/ and wrist/")
    registration.add_argument("--poses", type=_count, default=24, help="exposures of each subject")
    registration.add_argument(
        "--subjects", nargs="+", default=["embedded", "T5", "T8", "T11", "ribs", "wrist"], help="what is measured"
    )
    registration.add_argument("--json", type=Path, default=Path("out/registration.json"), help="write the figures here")
    instruments = verb(
        "instruments",
        "detection and tips of instruments on exposures that training never saw",
        _bench_instruments,
        bench,
    )
    instruments.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds chest/, knee/ and wrist/")
    instruments.add_argument("--approaches", type=_count, default=10000, help="simulated approaches for the alerts")
    instruments.add_argument("--frames", type=_count, default=400, help="exposures at each dose")
    instruments.add_argument("--json", type=Path, default=Path("out/instruments.json"), help="write the figures here")
    enhancement = verb(
        "enhancement",
        "noise, edges and ghosts of the display's picture by dose, beside other filters",
        _bench_enhancement,
        bench,
    )
    enhancement.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds knee/ and wrist/")
    enhancement.add_argument("--frames", type=_count, default=24, help="frames of each run, 10 at least")
    enhancement.add_argument("--json", type=Path, default=Path("out/enhancement.json"), help="write the figures here")
    display = verb(
        "display",
        "overlay received to pixels drawn, in Chromium drawing in software: from recorded messages, and beside the "
        "running pipeline (needs playwright and chromium)",
        _bench_display,
        bench,
    )
    display.add_argument("--launch", type=Path, default=shipped("launch/demo.yaml"), help="launch file (YAML)")
    display.add_argument("--seconds", type=_positive, default=60.0, help="of the run fed from recorded messages, s")
    display.add_argument("--pipeline-seconds", type=_positive, default=60.0, help="of the run beside the pipeline, s")
    display.add_argument("--viewers", type=_count, default=1, help="pages open at once, fed from recorded messages")
    display.add_argument("--json", type=Path, default=Path("out/display.json"), help="write the figures here")
    engine_bench = verb(
        "engines",
        "every network on each engine of this computer, and in 8 bits: speed, and distance from the CPU's answer",
        _bench_engines,
        bench,
    )
    engine_bench.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds chest/")
    engine_bench.add_argument("--frames", type=_count, default=24, help="exposures to calibrate and measure on")
    engine_bench.add_argument(
        "--json", type=Path, default=Path("out/engines-bench.json"), help="write the figures here"
    )
    faults = verb(
        "faults",
        "faults of clocks, pictures, trackers, requests, disks and files, put into real processes: what was said, and "
        "when; exit 1 when a row is not as expected (takes about ten minutes)",
        _bench_faults,
        bench,
    )
    faults.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these alone")
    faults.add_argument("--list", action="store_true", help="name them, with what is expected, and run none")
    faults.add_argument("--fps", type=_positive, default=15.0, help="frames a second")
    faults.add_argument("--size", type=_size, default=1024, help="pixels along a side")
    faults.add_argument("--json", type=Path, default=Path("out/faults.json"), help="write the rows here")
    peers = verb("peers", "the projector beside RTK's and DiffDRR's (extra `peers`)", _bench_peers, bench)
    peers.add_argument("--rounds", type=_count, default=20, help="turns that each projector takes")
    peers.add_argument("--json", type=Path, default=Path("out/peers.json"), help="write the figures here")
    return parser


def _add_endpoints(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Where whoever stands in for C-arm and tracker binds."""
    where = parser.add_argument_group("where to")
    where.add_argument("--frames-endpoint", default="tcp://127.0.0.1:5550", help="ZeroMQ endpoint to bind")
    where.add_argument("--tools-endpoint", default="tcp://127.0.0.1:5553", help="ZeroMQ endpoint of the tracker")
    return where


def _add_field(parser: argparse.ArgumentParser) -> None:
    """How the simulated C-arm is collimated."""
    field = parser.add_argument_group("the field")
    field.add_argument(
        "--aperture", type=_positive, default=0.98, metavar="SHARE",
        help="diameter of the round aperture, of the image's width; above 1.42 there is none",
    )  # fmt: skip
    field.add_argument(
        "--blades", type=_positive, default=0.9, metavar="SHARE",
        help="distance between the two lateral blades, of the image's width: 0.45 leaves two fifths of the image",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return options.run(options) or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except (ValueError, OSError, RuntimeError) as error:
        # What a user can put right has a text that says so; the trace is for us.
        if os.environ.get("FLUORONAV_TRACE"):
            raise
        print(f"fluoronav {options.verb}: {error}", file=sys.stderr)
        return 1


def _demo(options: argparse.Namespace) -> int:
    from fluoronav.lab.demo import run_demo

    port = options.port
    if options.no_display or importlib.util.find_spec("aiohttp") is None:
        if not options.no_display:
            print("no page is served: it needs the extra `display`: pip install 'fluoronav[display]'", file=sys.stderr)
        port = None
    failed = run_demo(shipped("launch/demo.yaml"), options.seconds, options.out, port)
    if failed:
        print(f"fluoronav demo: {failed}", file=sys.stderr)
    return 1 if failed else 0


def _run(options: argparse.Namespace) -> None:
    from fluoronav.site.launch import load_launch
    from fluoronav.stream.pipeline.service import Service

    launch = load_launch(options.launch)
    Service(launch, logging.getLogger("fluoronav").info).run()


def _simulate(options: argparse.Namespace) -> None:
    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.lab.simulation.flat_panel import FlatPanel
    from fluoronav.lab.simulation.grabber import Grabber
    from fluoronav.lab.simulation.sequence import load_or_render

    case = load_case(options.case)
    field = {"aperture_fraction": options.aperture, "collimator_fraction": options.blades}
    panel = FlatPanel(bits=options.bits, photons=options.photons, **field)
    sequence = load_or_render(case, Camera.load(options.camera), panel=panel)
    grabber = Grabber(case, sequence, options.frames_endpoint, options.tools_endpoint, options.source)
    if not options.quiet:
        print(f"publishing frame/{options.source} at {options.frames_endpoint}; waiting for a subscriber", flush=True)
    sent = 0
    if grabber.wait_for_subscriber():
        sent = grabber.stream(options.fps, options.frames)
    grabber.close(options.truth)
    if not options.quiet:
        print(f"{sent} frames sent")


def _case_build(options: argparse.Namespace) -> None:
    from fluoronav.case import load_case

    case = load_case(options.case, progress=lambda text: print(f"  {text}", file=sys.stderr, flush=True))
    size, spacing = case.ct.image.GetSize(), case.ct.image.GetSpacing()
    print(f"case {case.id}")
    print(f"CT {size[0]} x {size[1]} x {size[2]} voxels of {spacing[0]:.3g} x {spacing[1]:.3g} x {spacing[2]:.3g} mm")
    for s in case.structures:
        limits = f"caution {s.caution_mm:g} mm, danger {s.danger_mm:g} mm" if s.caution_mm else "no alert"
        print(f"structure {s.name}: label {s.label}, {limits}")
    for t in case.plan:
        print(f"trajectory {t.name}: from {t.entry_ct} to {t.target_ct}")
    for warning in case.warnings:
        print(f"WARNING {warning}")


def _register(options: argparse.Namespace) -> None:
    from fluoronav.imaging.registration.register import Request, register_files

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    request = Request(
        volume=options.volume,
        images=options.image,
        cameras=options.camera,
        init=options.init,
        auto=options.auto,
        orbit=options.orbit,
        labels=options.labels,
        bones=tuple(options.bone),
        overlay=options.overlay,
        frame=options.frame,
        polarity=options.polarity,
        series=options.series,
    )
    result = register_files(request, say)
    write_json(result, options.json)
    for view in result["views"]:
        print(
            f"{view['image']}: score {view['score']:.2f}, 95 % error {view['tre_image_mm']:.1f} mm across the ray, "
            f"{view['tre_mm']:.1f} mm in space"
        )
    print(f"{'accepted' if result['accepted'] else 'NOT accepted: ' + result['reason']} after {result['ms']:.0f} ms")


def _calibrate_pivot(options: argparse.Namespace) -> None:
    from fluoronav.calibration.pivot import pivot_calibration, spin_axis
    from fluoronav.calibration.tool_stream import collect_poses

    poses = collect_poses(options.endpoint, options.tool, options.seconds, "tilt the tool about its tip")
    found = pivot_calibration(poses)
    tip = [round(x, 3) for x in found.tip_mm.tolist()]
    result = {
        "tool": options.tool, "tip_mm": tip, "sigma_mm": found.sigma_mm.tolist(), "rms_mm": found.rms_mm,
        "spread_deg": found.spread_deg, "poses": found.poses, "outliers": found.outliers,
    }  # fmt: skip
    print(
        f"tip at {tip} mm in the marker's frame, within {2 * found.sigma_mm.max():.2f} mm (95 %); it strayed by "
        f"{found.rms_mm:.2f} mm (rms) in {found.poses} poses, {found.outliers} of which were left out"
    )
    print(f"in the case's or the tool's file:\n  tip_mm: {tip}")
    if options.spin_seconds > 0:
        spun = collect_poses(options.endpoint, options.tool, options.spin_seconds, "spin the tool about its shaft")
        result["axis"] = [round(x, 5) for x in spin_axis(spun, found.tip_mm).tolist()]
        print(f"  axis: {result['axis']}")
    write_json(result, options.json)


def _calibrate_detector(options: argparse.Namespace) -> None:
    import cv2
    import numpy as np
    from tqdm import tqdm

    from fluoronav.imaging.xray.detector import DetectorCalibration, DetectorError

    def stack(paths: list[Path], what: str) -> np.ndarray:
        images = []
        for path in tqdm(paths, what, unit="frame"):
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if image is None or image.ndim != 2:
                raise DetectorError(f"{path}: cannot be read as a grey picture")
            if images and image.shape != images[0].shape:
                raise DetectorError(f"{path}: is {image.shape[1]} x {image.shape[0]} pixels, the first frame is not")
            images.append(image)
        return np.stack(images)

    found = DetectorCalibration.of_frames(stack(options.dark, "dark"), stack(options.flat, "flat"))
    found.save(options.out)
    print(
        f"offset {found.offset.mean():.1f} counts, gain varies by {100 * found.gain[~found.dead].std():.2f} % "
        f"(1 sigma), {found.dead.sum()} dead pixels; written: {options.out}"
    )


def _display(options: argparse.Namespace) -> None:
    try:
        from fluoronav.display.hub import Hub
        from fluoronav.display.server import DisplayServer, serve
    except ImportError as error:
        raise RuntimeError(f"needs the extra `display`: pip install 'fluoronav[display]' ({error})") from error
    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.site.audit import AuditTrail
    from fluoronav.site.launch import load_launch

    launch = load_launch(options.launch or shipped("launch/demo.yaml"))
    server = DisplayServer(
        Hub(launch.endpoints.out, launch.endpoints.frames), launch.endpoints.requests, Camera.load(launch.camera),
        lambda name: load_case(launch.cases.get(name, launch.case)), AuditTrail(launch.audit_folder, "display"),
        allowed_hosts=options.allowed_host,
    )  # fmt: skip

    def started(port: int) -> None:
        address = f"http://{options.host}:{port}/"
        print(f"watch:   {address}\ncontrol: {address}?key={server.control_key}", flush=True)

    serve(server, options.host, options.port, started)


def _audit_verify(options: argparse.Namespace) -> None:
    from fluoronav.site.audit import AuditError, TornTrail, verify_trail

    files = [f for t in options.trails for f in (sorted(t.glob("*.jsonl")) if t.is_dir() else [t])]
    if not files:
        raise AuditError(f"{options.trails[0]}: holds no trail (*.jsonl)")
    changed: AuditError | None = None
    for file in files:
        try:
            print(f"{file}: {verify_trail(file)} events, unchanged")
        except TornTrail as error:
            print(
                f"{file}: {error.events} events, unchanged; the line after them was not finished (crash or full disk)"
            )
        except AuditError as error:
            if changed is not None:
                print(changed, file=sys.stderr)
            changed = error
    if changed is not None:
        raise changed


def _until_stopped() -> threading.Event:
    """Set when somebody ends this process."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _serve_igtl(options: argparse.Namespace) -> None:
    try:
        from fluoronav.openigtlink.server import SlicerServer
    except ImportError as error:
        raise RuntimeError(f"needs the extra `igtl`: pip install 'fluoronav[igtl]' ({error})") from error
    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.site.launch import load_launch

    launch = load_launch(options.launch)
    server = SlicerServer(
        launch.endpoints.out, launch.endpoints.frames, Camera.load(launch.camera), load_case(launch.case),
        options.serve, options.interface,
    )  # fmt: skip
    stop = _until_stopped()
    print(f"serving OpenIGTLink at {server.host}:{server.port}", flush=True)
    server.run(stop.is_set)
    server.close()
    print(", ".join(f"{n} {what}" for what, n in server.counts.items()) or "nothing sent")


def _bridge_igtl(options: argparse.Namespace) -> None:
    if options.serve is not None:
        _serve_igtl(options)
        return
    from fluoronav.openigtlink.devices import tool_ids
    from fluoronav.openigtlink.tracker import TrackerBridge

    names = tool_ids(options.tool)
    stop = _until_stopped()
    host, port = options.tracker
    bridge = TrackerBridge(host, port, options.endpoint, options.source, names, options.error_mm)
    print(f"publishing tool/{options.source} at {options.endpoint} from {host}:{port}", flush=True)
    bridge.run(stop.is_set)
    bridge.close()
    print(", ".join(f"{n} {what}" for what, n in bridge.counts.items()) or "nothing sent")


def _record(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fluoronav.recording import Recorder
    from fluoronav.site.launch import load_launch

    launch = load_launch(options.launch or shipped("launch/demo.yaml"))
    stop = _until_stopped()
    if options.until_input_ends:

        def wait_for_the_end() -> None:
            while os.read(sys.stdin.fileno(), 4096):
                pass
            stop.set()

        threading.Thread(target=wait_for_the_end, name="input", daemon=True).start()
    recorder = Recorder(launch.source, launch.case, launch.endpoints.model_dump(), options.out, stop)
    with tqdm(unit="frame", desc=str(options.out), disable=None) as bar:
        recorder.run(options.seconds, lambda kind: bar.update(kind == "frame"))
    c = recorder.counted
    print(
        f"{options.out}: {c['frame']} frames ({c['lost']} lost on the way), {c['tool']} tool messages, "
        f"{c['overlay']} overlays, {c['alert']} alerts"
    )


def _replay(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fluoronav.recording import Replay

    stop = _until_stopped()
    replay = Replay(options.recording, options.frames_endpoint, options.tools_endpoint, stop)
    source = replay.head["source"]
    print(f"publishing frame/{source} at {options.frames_endpoint}; waiting for a subscriber", flush=True)
    try:
        if replay.wait_for_subscriber():
            with tqdm(unit="frame", desc=str(options.recording), disable=None) as bar:
                again = True
                while again:
                    replay.run(options.speed, lambda kind: bar.update(kind == "frames"))
                    again = options.loop and bool(replay.counted) and not stop.is_set()
    finally:
        replay.close()
    print(f"{replay.counted['frames']} frames and {replay.counted['tools']} tool messages sent")


def _engines_build(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fluoronav.imaging.inference.cache import TARGETS, keep
    from fluoronav.imaging.inference.cuda import this_gpu
    from fluoronav.imaging.inference.manifest import approved, shipped_models
    from fluoronav.imaging.inference.tensorrt import build

    targets = list(TARGETS) if options.target == ["all"] else options.target
    targets = [this_gpu() if t == "this" else t for t in targets]
    models = [(approved(path), options.precision) for path in shipped_models()]
    if options.case:
        from fluoronav.case import load_case
        from fluoronav.imaging.registration.graph_backend import step_models_of_case

        # Sums over all pixels overflow in half precision.
        models += [(step, "fp32") for step in step_models_of_case(load_case(options.case))]
    work = [(model, precision, target) for model, precision in models for target in targets]
    for model, precision, target in (bar := tqdm(work, unit="engine")):
        bar.set_description(f"{model.path.name} for {target}")
        key, content = build(model, options.engine, target, precision)
        tqdm.write(f"{keep(key, content)}  {len(content) / 1e6:.1f} MB")


def _engines_verify(options: argparse.Namespace) -> int:
    from fluoronav.imaging.inference.verify import table, verify

    result = verify(options.engine, options.precision)
    if options.case:
        from fluoronav.case import load_case
        from fluoronav.geometry import Camera
        from fluoronav.imaging.inference import InferenceSettings
        from fluoronav.imaging.registration.graph_backend import verified_steps

        settings = InferenceSettings.model_validate({"engine": options.engine, "fallback": "refuse"})
        camera = Camera.load(shipped("calibration/demo-carm.yaml"))
        result["models"] += verified_steps(load_case(options.case), camera, settings)
    print(table(result))
    write_json(result, options.json)
    return 0 if all(m["within"] for m in result["models"]) else 1


def _status(options: argparse.Namespace) -> int:
    import msgpack
    import zmq

    from fluoronav.wire import encode, make_request

    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(options.endpoint)
    socket.send(encode(make_request("status", user="status")))
    answered = socket.poll(options.timeout * 1000)
    reply = msgpack.unpackb(socket.recv()) if answered else None
    socket.close()
    context.term()
    if reply is None:
        print(
            f"no answer from {options.endpoint} within {options.timeout:g} s: is `fluoronav run` running?",
            file=sys.stderr,
        )
        return 1
    if not reply["ok"]:
        print(f"{options.endpoint} refuses to say: {reply['error']['text']}", file=sys.stderr)
        return 1
    health = reply["result"]
    f, ms = health["frames"], health["latency_ms"]
    print(
        f"{health['state']}: case {health['case'] or 'not loaded'}, {health['fps_out']:.1f} overlays a second, latency "
        f"p50 {ms['p50']:.1f} p99 {ms['p99']:.1f} ms; {f['processed']} processed, {f['network']} lost, "
        f"{f['overload']} skipped, {f['invalid']} invalid"
    )
    return 0 if health["state"] in ("ready", "running") else 1


def _bench_latency(options: argparse.Namespace) -> int:
    import tempfile

    from fluoronav.case import load_case
    from fluoronav.geometry import Camera
    from fluoronav.lab.latency_report import draw_histogram, report, table
    from fluoronav.lab.simulation.flat_panel import FlatPanel
    from fluoronav.lab.simulation.rig import capture_run, scaled_camera
    from fluoronav.lab.simulation.sequence import load_or_render
    from fluoronav.site.launch import load_launch

    panel = FlatPanel(aperture_fraction=options.aperture, collimator_fraction=options.blades)
    launch = load_launch(options.launch, **({"stages": options.stages} if options.stages else {}))
    case = load_case(launch.case)
    with tempfile.TemporaryDirectory() as folder:
        load_or_render(case, Camera.load(scaled_camera(launch.camera, options.size, Path(folder))), panel=panel)
    recording = capture_run(
        launch.model_dump(mode="json"),
        options.frames,
        options.fps,
        options.transport,
        lambda text: print(text, file=sys.stderr, flush=True),
        options.size,
        collimated=("--aperture", str(options.aperture), "--blades", str(options.blades)),
    )
    result = report(recording, case.target_ct, launch.deadline_ms)
    result["settings"] = {
        "fps": options.fps, "frames": options.frames, "size": options.size, "transport": options.transport,
        "aperture": options.aperture, "blades": options.blades, "stages": list(launch.stages),
    }  # fmt: skip
    print(table(result))
    write_json(result, options.json)
    png = options.png or options.json.with_suffix(".png")
    draw_histogram(recording, launch.deadline_ms, png)
    print(f"written: {options.json}, {png}")
    return 1 if result["failed"] else 0


def _bench_registration(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.registration import bench_registration, table

    result = bench_registration(
        options.data, tuple(options.subjects), options.poses, lambda text: print(text, file=sys.stderr, flush=True)
    )
    print(table(result))
    write_json(result, options.json)
    print(f"written: {options.json}")


def _bench_instruments(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.instruments import bench_instruments, table

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    result = bench_instruments(options.data, options.frames, options.approaches, say, options.json.parent)
    print(table(result))
    write_json(result, options.json)
    print(f"written: {options.json}, and sheets of what went right and wrong beside it")


def _bench_enhancement(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.enhancement import bench_enhancement, table

    result = bench_enhancement(options.data, max(options.frames, 10), options.json.parent)
    print(table(result))
    write_json(result, options.json)
    print(f"written: {options.json}, and a sheet of pictures beside it")


def _bench_display(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.display import bench_display, table

    result = bench_display(
        options.launch,
        options.seconds,
        options.pipeline_seconds,
        options.viewers,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(table(result))
    write_json(result, options.json)


def _bench_engines(options: argparse.Namespace) -> None:
    from fluoronav.lab.bench.engines import bench_engines, table

    result = bench_engines(options.data, options.frames, lambda text: print(text, file=sys.stderr, flush=True))
    print(table(result))
    write_json(result, options.json)


def _bench_faults(options: argparse.Namespace) -> int:
    from fluoronav.lab.bench.faults.bench import bench_faults, chosen
    from fluoronav.lab.bench.faults.row import table

    faults = chosen(options.only)
    if options.list:
        print("\n".join(f"{f.name:40}{f.expected}" for f in faults))
        return 0
    result = bench_faults(faults, options.size, options.fps, lambda text: print(text, file=sys.stderr, flush=True))
    print(table(result["faults"]))
    write_json(result, options.json)
    print(f"written: {options.json}")
    return 1 if any(row["ok"] is False for row in result["faults"]) else 0


def _bench_peers(options: argparse.Namespace) -> None:
    from fluoronav.case import load_case
    from fluoronav.lab.bench.peers import bench_peers, table

    result = bench_peers(
        load_case("embedded"), max(options.rounds, 1), lambda text: print(text, file=sys.stderr, flush=True)
    )
    print(table(result))
    write_json(result, options.json)
    print(f"written: {options.json}")


if __name__ == "__main__":
    sys.exit(main())
