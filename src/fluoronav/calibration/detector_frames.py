"""The frames that a detector is calibrated from, read from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.imaging.xray.detector import DetectorError


def read_frames(paths: Sequence[Path], what: str) -> NDArray:
    """Reads frames of one size.

    Parameters
    ----------
    paths : sequence of path
        TIFF or PNG, one grey frame each.
    what : str
        Stands before the progress bar.

    Returns
    -------
    ndarray, shape (frames, rows, columns)
        Counts, in the files' own type.

    Raises
    ------
    DetectorError
        A file that is no grey image, or of another size than the first.
    """
    images = []
    for path in tqdm(paths, what, unit="frame"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None or image.ndim != 2:
            raise DetectorError(f"{path}: cannot be read as a grey picture")
        if images and image.shape != images[0].shape:
            raise DetectorError(f"{path}: is {image.shape[1]} x {image.shape[0]} pixels, the first frame is not")
        images.append(image)
    return np.stack(images)
