"""`fluoronav dicom xa|gsps|sc|reg|ko`: objects about a run that `fluoronav record` has kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import add_verb, at_least_one, count
from fluoronav.cli.dicom_output import add_output, dicom_objects, provenance, write

_RECORDING = "a file of `fluoronav record`"


def add_verbs(dicom: argparse._SubParsersAction) -> None:
    for add in (_add_xa, _add_gsps, _add_sc, _add_reg, _add_ko):
        add(dicom)


def _add_xa(dicom: argparse._SubParsersAction) -> None:
    xa = add_verb(
        dicom,
        "xa",
        "write the recorded frames as a multi-frame X-ray image",
        _xa,
        "fluoronav dicom xa run.mcap --source ct/0001.dcm --out run.dcm",
        "fluoronav dicom xa run.mcap --first 120 --last 180 --source ct/0001.dcm --out part.dcm",
    )
    xa.add_argument("recording", type=Path, help=_RECORDING)
    xa.add_argument("--first", type=count, metavar="SEQ", help="number of the first frame")
    xa.add_argument("--last", type=count, metavar="SEQ", help="number of the last frame")
    add_output(xa, "a DICOM image of the study that it goes to (the C-arm's, or the CT's)")


def _add_gsps(dicom: argparse._SubParsersAction) -> None:
    gsps = add_verb(
        dicom,
        "gsps",
        "write the overlay of a recorded frame as a presentation state over its X-ray image",
        _gsps,
        "fluoronav dicom gsps run.mcap --seq 150 --source run.dcm --out gsps.dcm",
    )
    gsps.add_argument("recording", type=Path, help=_RECORDING)
    gsps.add_argument("--seq", type=count, required=True, metavar="SEQ", help="number of the recorded frame")
    gsps.add_argument(
        "--frame",
        type=at_least_one,
        help="frame of the image, from 1; by default the one with the recorded frame's pixels",
    )
    add_output(gsps, "the X-ray image (DICOM, one file) that shows this frame")


def _add_sc(dicom: argparse._SubParsersAction) -> None:
    sc = add_verb(
        dicom,
        "sc",
        "write the twin of a presentation state: the picture with the same graphics burnt in",
        _sc,
        "fluoronav dicom sc gsps.dcm --source run.dcm --out sc.dcm",
    )
    sc.add_argument("gsps", type=Path, help="a file of `fluoronav dicom gsps`")
    add_output(sc, "the X-ray image (DICOM, one file) that the presentation state refers to")


def _add_reg(dicom: argparse._SubParsersAction) -> None:
    reg = add_verb(
        dicom,
        "reg",
        "write an accepted pose of the CT before the C-arm as a spatial registration",
        _reg,
        "fluoronav dicom reg run.mcap --source ct/ --image run.dcm --accepted-by Who^Ever --out reg.dcm",
    )
    reg.add_argument("recording", type=Path, help=_RECORDING)
    reg.add_argument(
        "--seq", type=count, metavar="SEQ", help="number of the frame; by default the last with an accepted pose"
    )
    reg.add_argument(
        "--image",
        type=Path,
        required=True,
        metavar="FILE",
        help="the X-ray image (DICOM, one file) that shows this frame",
    )
    reg.add_argument(
        "--frame",
        type=at_least_one,
        help="frame of the image, from 1; by default the one with the recorded frame's pixels",
    )
    add_output(reg, "the CT (DICOM folder or file)")


def _add_ko(dicom: argparse._SubParsersAction) -> None:
    ko = add_verb(
        dicom,
        "ko",
        "write a selection of marked images or frames",
        _ko,
        "fluoronav dicom ko --source run.dcm --frame 12 --frame 31 --note Wire --out ko.dcm",
    )
    ko.add_argument(
        "--frame",
        type=at_least_one,
        action="append",
        default=[],
        help="frame of the image, from 1; may be repeated; all by default",
    )
    ko.add_argument("--note", default="", metavar="TEXT", help="what a person is to know about them")
    ko.add_argument(
        "--title", choices=("interest", "surgery", "report"), default="interest", help="why they were selected"
    )
    add_output(ko, "the marked image (DICOM, one file)")


def _xa(options: argparse.Namespace) -> None:
    import numpy as np
    from tqdm import tqdm

    from fluoronav.recording.moments import frames_of

    made_by = provenance(options)
    objects = dicom_objects()
    from fluoronav.recording.acquisition import acquisition_of

    source = objects.read_source(options.source)
    headers, counts = [], []
    for header, picture in tqdm(frames_of(options.recording, options.first, options.last), unit="frame", disable=None):
        if counts and picture.shape != counts[0].shape:
            raise ValueError(
                f"{options.recording}: frame {header.seq} has another size than frame {headers[0].seq}; write "
                "each part by itself (--first, --last)"
            )
        objects.check_study(source, header.study)
        headers.append(header)
        counts.append(picture)
    if not headers:
        raise ValueError(f"{options.recording}: has no frame between --first and --last")
    made = objects.xray_run(source, made_by, np.stack(counts), acquisition_of(headers))
    write(options, made, "xa", {"frames": [{"frame": k + 1, "seq": h.seq} for k, h in enumerate(headers)]})


def _shown_in(options: argparse.Namespace, seq: int, image: Path) -> tuple[Any, int]:
    """The source of an X-ray image, and which of its frames shows a recorded one."""
    import numpy as np
    import pydicom

    from fluoronav.recording.moments import frame_of

    objects = dicom_objects()
    source = objects.read_source(image)
    header, counts = frame_of(options.recording, seq)
    single = source.single()
    if header.instance and header.instance != single.SOPInstanceUID:
        raise ValueError(f"{image}: is another image (SOPInstanceUID differs) than the one that frame {seq} is of")
    objects.check_study(source, header.study)
    if (single.Rows, single.Columns) != counts.shape:
        raise ValueError(
            f"{image}: is {single.Rows} x {single.Columns} pixels, frame {seq} is "
            f"{counts.shape[0]} x {counts.shape[1]}; its graphics would not lie where they belong"
        )
    if options.frame is not None:
        return source, options.frame
    frames = pydicom.dcmread(image).pixel_array.reshape(source.frames, *counts.shape)
    same = [k for k in range(len(frames)) if np.array_equal(frames[k], counts)]
    if not same:
        raise ValueError(
            f"{image}: no frame has the pixels of the recorded frame {seq}; name the one that shows it: --frame"
        )
    return source, same[0] + 1


def _gsps(options: argparse.Namespace) -> None:
    from fluoronav.recording.moments import overlay_of

    objects = dicom_objects()
    overlay = overlay_of(options.recording, options.seq)
    made_by = provenance(options, overlay.get("models"))
    source, frame = _shown_in(options, options.seq, options.source)
    made = objects.presentation_state(source, made_by, objects.graphics_of(overlay), frame=frame)
    write(options, made, "gsps", {"seq": options.seq, "frame": frame})


def _sc(options: argparse.Namespace) -> None:
    import pydicom

    made_by = provenance(options)
    objects = dicom_objects()
    source = objects.read_source(options.source)
    state = pydicom.dcmread(options.gsps)
    frame = objects.referenced_frame(state, source)
    pixels = pydicom.dcmread(options.source).pixel_array
    shape = (source.frames, int(source.first.Rows), int(source.first.Columns))
    graphics = objects.graphics_in(state, frame)
    made = objects.secondary_capture(source, made_by, pixels.reshape(shape)[frame - 1], graphics, frame=frame)
    write(options, made, "sc", {"frame": frame, "gsps": str(state.SOPInstanceUID)})


def _reg(options: argparse.Namespace) -> None:
    from fluoronav.recording.moments import accepted_overlay

    objects = dicom_objects()
    overlay = accepted_overlay(options.recording, options.seq)
    made_by = provenance(options, overlay.get("models"))
    image, frame = _shown_in(options, overlay["seq"], options.image)
    registration = overlay["registration"]
    made = objects.spatial_registration(
        objects.read_source(options.source),
        image,
        made_by,
        registration["T_camera_ct"],
        frame=frame,
        comment=f"95 % bound {registration['tre_mm']:.1f} mm, {registration['tre_image_mm']:.1f} mm across",
    )
    write(options, made, "reg", {"seq": overlay["seq"], "frame": frame})


def _ko(options: argparse.Namespace) -> None:
    made_by = provenance(options)
    objects = dicom_objects()
    source = objects.read_source(options.source)
    frames = {source.single().SOPInstanceUID: options.frame} if options.frame else None
    made = objects.key_object_selection([source], made_by, frames=frames, note=options.note, title=options.title)
    write(options, made, "ko", {"frames": options.frame})
