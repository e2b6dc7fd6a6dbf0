"""`fluoronav register`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli.arguments import add_json, add_verb, at_least_one, label_or_file
from fluoronav.cli.reporting import say
from fluoronav.paths import write_json

_UNITS = ("hu", "shifted", "raw")


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    register = add_verb(
        verbs,
        "register",
        "register a CT to one image, or to several of one moment, and write the pose of each view",
        _register,
        "fluoronav register --volume ct.nrrd --image ap.png --camera carm.yaml --init start.json --json pose.json",
        "fluoronav register --volume radius.nrrd --units shifted --image ap.dcm lateral.dcm --auto --json pose.json",
    )
    _add_volume(register.add_argument_group("volume"))
    _add_images(register.add_argument_group("images"))
    _add_start(register.add_argument_group("start pose"))
    output = register.add_argument_group("output")
    add_json(output, what="the result")
    output.add_argument(
        "--overlay", type=Path, metavar="FILE", help="draw the outline of the model on the first image (PNG)"
    )


def _add_volume(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--volume",
        type=Path,
        required=True,
        metavar="PATH",
        help="CT: DICOM folder, DICOMDIR or file, NRRD, NIfTI or MetaImage",
    )
    group.add_argument(
        "--series", metavar="UID", help="SeriesInstanceUID of the CT, where its folder or DICOMDIR holds several"
    )
    group.add_argument(
        "--units",
        choices=_UNITS,
        help="units of the values of the CT. hu: Hounsfield units (air -1000, water 0). shifted: HU + 1000 (air 0, "
        "water 1000), also a bone cut out with 0 around it. raw: stored values without their DICOM rescale; they are "
        "refused. By default the header of the file decides, or the values do, and a note says what was inferred",
    )
    group.add_argument("--bone-units", choices=_UNITS, help="units of the volumes given with --bone, as for --units")
    group.add_argument(
        "--labels", type=Path, metavar="FILE", help="label map of the CT, where only some bones move together"
    )
    group.add_argument(
        "--bone",
        type=label_or_file,
        nargs="+",
        default=[],
        metavar="LABEL|FILE",
        help="bones to register: labels of --labels, or volumes that hold one bone each (CT in the same frame, air "
        "around the bone); several bones also get a pose each",
    )


def _add_images(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--image",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="X-ray images (TIFF, PNG or DICOM), one per view",
    )
    group.add_argument(
        "--camera",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="camera files (YAML), in the order of the images; a DICOM image describes its own camera",
    )
    group.add_argument("--frame", type=at_least_one, default=1, help="frame of a DICOM multi-frame image, from 1")
    group.add_argument(
        "--polarity",
        choices=("counts", "inverse"),
        help="whether the values of the images rise with the X-ray intensity (counts: bone is dark) or fall (inverse: "
        "bone is white); by default the DICOM header or the image itself decides",
    )
    group.add_argument(
        "--intensity",
        choices=("linear", "log"),
        help="whether the stored values of DICOM images are proportional to the X-ray intensity (linear) or to its "
        "logarithm (log); by default PixelIntensityRelationship and the file's lookup tables decide",
    )


def _add_start(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help='JSON file {"T_camera_ct": 4 x 4} of the first view, mm; must be within 10 deg and 10 mm unless --auto '
        "is given",
    )
    group.add_argument(
        "--auto",
        action="store_true",
        help="search: the start (--init or the DICOM header) may be off by 30 deg, 100 mm in the plane and 60 mm in "
        "depth",
    )
    group.add_argument(
        "--orbit",
        action="store_true",
        help="like --auto, with an unknown orbital angle: AP to lateral, on both sides",
    )


def _register(options: argparse.Namespace) -> None:
    from fluoronav.imaging.registration.register import RegistrationRequest, register_files

    request = RegistrationRequest(
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
        intensity=options.intensity,
        series=options.series,
        units=options.units,
        bone_units=options.bone_units,
    )
    result = register_files(request, say)
    write_json(result, options.json)
    for view in result["views"]:
        print(
            f"{view['image']}: score {view['score']:.2f}, 95 % error {view['tre_image_mm']:.1f} mm across the ray, "
            f"{view['tre_mm']:.1f} mm in space"
        )
    print(f"{'accepted' if result['accepted'] else 'NOT accepted: ' + result['reason']} after {result['ms']:.0f} ms")
