"""`fluoronav plan model`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli.arguments import add_verb
from fluoronav.cli.reporting import missing_extra


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verb to its family."""
    model = add_verb(
        family,
        "model",
        "write the card of a segmentation network that nnU-Net 2 has trained, so that `plan segment --engine network` "
        "runs it: spacing (mm), patch (voxels), intensities (HU), structures, hash, licence",
        _model,
        "fluoronav plan model spine/net.onnx --plans plans.json --dataset dataset.json --orientation RAS "
        "--licence Apache-2.0 --origin our-200-CTs",
    )
    model.add_argument(
        "network", type=Path, help="the network as ONNX: one window in, logits out; the card goes beside it"
    )
    model.add_argument("--plans", type=Path, required=True, metavar="FILE", help="plans.json of the trained model")
    model.add_argument("--dataset", type=Path, required=True, metavar="FILE", help="dataset.json of the trained model")
    model.add_argument("--configuration", default="3d_fullres", metavar="NAME", help="configuration of nnU-Net")
    model.add_argument(
        "--orientation",
        required=True,
        metavar="AXES",
        help="towards which side of the patient the axes of its arrays grow: RAS for TotalSegmentator; `file` where "
        "images were taken as they are stored",
    )
    model.add_argument("--licence", required=True, help="of the weights")
    model.add_argument("--origin", required=True, metavar="TEXT", help="who trained it, on what")


def _model(options: argparse.Namespace) -> int:
    try:
        from fluoronav.planning.segmentation.model_card import card_from_nnunet, write_card
        from fluoronav.planning.segmentation.network import NetworkEngine
    except ImportError as error:
        raise missing_extra("planning", error) from error
    card = card_from_nnunet(
        options.network, options.plans, options.dataset, options.configuration, orientation=options.orientation,
        licence=options.licence, origin=options.origin,
    )  # fmt: skip
    path = write_card(card, options.network.parent)
    # One window is run: a network that does not fit its card is found now, and not before an operation.
    NetworkEngine(path.parent)
    z, y, x = card.spacing_mm
    print(f"written: {path}: {len(card.labels)} structures at {x:g} x {y:g} x {z:g} mm; one window was run")
    return 0
