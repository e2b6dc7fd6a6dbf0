"""A detection with a given tip, angle and length."""

import numpy as np

from fluoronav.stream.frame import Detection


def detection(x, y, angle=0.0, kind="k-wire", score=0.9, length=300.0):
    direction = np.array([np.cos(angle), np.sin(angle)])
    tip = np.array([x, y], float)
    return Detection("", kind, score, tip, tip - length * direction, direction, 7.0, 0.7, 0.1, 0.0, 0)
