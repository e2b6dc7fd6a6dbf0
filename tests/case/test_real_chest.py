"""A whole chest CT as a hospital would hand it over: NIfTI, contrast, 35 million voxels."""

import csv

import numpy as np
import yaml

from fluoronav.case import load_case
from fluoronav.geometry import Camera
from fluoronav.imaging.projector import Projector
from fluoronav.imaging.registration.model import bone_grid, tissue_grid


def test_the_real_chest_becomes_a_case_that_can_be_projected(shared_data, tmp_path, case):
    chest = shared_data / "chest"
    label = {row["structure"]: int(row["id"]) for row in csv.DictReader((chest / "labels.csv").open())}
    names = ["vertebrae_T7", "vertebrae_T8", "vertebrae_T9", "aorta", "spinal_cord"]
    content = {
        "name": "chest",
        "ct": str(chest / "ct.nii.gz"),
        "labels": str(chest / "labels.nii.gz"),
        "structures": [{"name": n, "label": label[n]} for n in names],
        "rigid": {"structures": names[:3]},
        "prior": case.prior.model_dump(mode="json"),
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(content))
    whole = load_case(tmp_path, cache=tmp_path)
    # The embedded case is a crop of this scan: the same structures lie at the same distances.
    points = np.array([t.target_ct for t in case.plan])
    for name in ("aorta", "spinal_cord", "vertebrae_T8"):
        ours, theirs = (next(s for s in c.structures if s.name == name).field for c in (case, whole))
        np.testing.assert_allclose(ours.sample(points)[0], theirs.sample(points)[0], atol=0.05)
    bone = bone_grid(whole.ct, whole.labels, whole.rigid_labels, 1.0)
    model = tissue_grid(whole.ct, bone.centre_ct, 90.0, 1.0, 8.0)
    assert model.voxels.nbytes < 100e6 and bone.voxels.max() > 0
    camera = Camera(64, 64, np.array([[213.0, 0, 31.5], [0, 213, 31.5], [0, 0, 1]]))
    drr = Projector(model).render(case.prior.T_camera_ct(), camera)
    assert drr[32, 32] > 1.0
