"""Hash of a volume, by which a plan names the CT and the label map that it was made on."""

from __future__ import annotations

import hashlib

import numpy as np
import SimpleITK as sitk


def volume_hash(image: sitk.Image) -> str:
    """SHA-256 of a volume's voxels, type, size and place; the same for every file format that holds it.

    Parameters
    ----------
    image : SimpleITK.Image
        CT or label map. Its place enters at 1 micrometre, so that a format with less precision gives the same hash.
    """
    digest = hashlib.sha256()
    view = sitk.GetArrayViewFromImage(image)
    place = (*image.GetOrigin(), *image.GetSpacing(), *image.GetDirection())
    # Adding zero turns a negative zero into a positive one.
    digest.update((np.round(np.array(place) * 1000) + 0.0).astype("<f8").tobytes())
    digest.update(repr((view.dtype.str, view.shape)).encode())
    for plane in view:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()
