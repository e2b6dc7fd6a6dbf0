"""`fluoronav record` and `fluoronav replay`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli.arguments import add_endpoints, add_launch, add_verb, positive
from fluoronav.process_end import stop_when_input_ends, until_stopped


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    record = add_verb(
        verbs,
        "record",
        "record every frame, tool pose, overlay and alert of a running pipeline to a file, until Ctrl-C (2 MB per "
        "frame of 1024 x 1024)",
        _record,
        "fluoronav record launch/demo.yaml --out run.mcap",
        "fluoronav record launch/demo.yaml --out run.mcap --seconds 60",
    )
    add_launch(record, positional=True)
    record.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="recording to write (MCAP); must not exist yet"
    )
    record.add_argument("--seconds", type=positive, default=None, help="stop after this time, s")
    record.add_argument(
        "--until-input-ends", action="store_true", help="also stop when standard input is closed by the parent process"
    )

    replay = add_verb(
        verbs,
        "replay",
        "send the frames and tool poses of a recording again at their original pace; `fluoronav run` takes them for "
        "live",
        _replay,
        "fluoronav replay run.mcap",
        "fluoronav replay run.mcap --speed 2 --loop",
    )
    replay.add_argument("recording", type=Path, help="a file of `fluoronav record` (.mcap, or an old .fnrec)")
    replay.add_argument("--speed", type=positive, default=1.0, help="factor on the pace; 2 is twice as fast")
    replay.add_argument("--loop", action="store_true", help="repeat until Ctrl-C")
    add_endpoints(replay)


def _record(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fluoronav.recording import Recorder
    from fluoronav.site.launch import load_launch

    launch = load_launch(options.launch)
    folder = options.out.absolute().parent
    if not folder.is_dir():
        raise ValueError(
            f"{options.out} cannot be written: there is no folder {folder}; make it, or choose another file by --out"
        )
    stop = until_stopped()
    if options.until_input_ends:
        stop_when_input_ends(stop)
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

    stop = until_stopped()
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
