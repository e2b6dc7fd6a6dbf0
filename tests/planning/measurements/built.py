"""Synthetic spines and legs as label maps."""

import numpy as np

from fluoronav.lab.simulation.bones import SyntheticLeg, SyntheticVertebra, label_map
from fluoronav.planning.measurements.mask import masks_of

LEFT_FEMUR, LEFT_TIBIA = 75, 130


def spine(levels, rotations=None, spacing=(1.0, 1.0, 1.0), vertebra=None, apart=42.0, direction=None):
    """Vertebrae one above the other: level values from head to tail, each with its rotation matrix about its middle."""
    vertebra = vertebra or SyntheticVertebra()
    rotations = rotations or [np.eye(3)] * len(levels)
    solids = {}
    for k, (label, rotation) in enumerate(zip(levels, rotations, strict=True)):
        middle = np.array([0.0, 0.0, -apart * k])
        solids[label] = lambda p, middle=middle, rotation=rotation: vertebra.inside((p - middle) @ rotation)
    low = np.array([-50.0, -35.0, -apart * (len(levels) - 1) - 45.0])
    return label_map(solids, low, np.array([50.0, 80.0, 45.0]), spacing, direction)


def leg(side="left", spacing=(1.5, 1.5, 1.5), low=-860.0, high=45.0, **angles):
    """A leg and its label map, with the hip at (90, 0, 800) or its mirror image."""
    made = SyntheticLeg(**angles)
    hip = np.array([90.0 if side == "left" else -90.0, 0.0, 800.0])
    solids = made.solids(side, hip)
    labels = {LEFT_FEMUR: solids[f"femur_{side}"], LEFT_TIBIA: solids[f"tibia_{side}"]}
    image = label_map(labels, hip + [-110, -60, low], hip + [110, 60, high], spacing)
    return made, hip, image, {LEFT_FEMUR: f"femur_{side}", LEFT_TIBIA: f"tibia_{side}"}


def one(image, value=29, name="vertebrae_L3"):
    return masks_of(image, [(value, name)])[name]
