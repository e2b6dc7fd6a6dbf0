"""Launch files: what they say is checked before anything starts."""

import pytest
import yaml

from fluoronav.paths import shipped
from fluoronav.pipeline import LaunchError, load_launch

GOOD = {"case": "embedded", "camera": "cam.yaml"}


def written(tmp_path, content):
    path = tmp_path / "launch.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_the_shipped_launch_file_is_valid_and_names_existing_files():
    from pathlib import Path

    launch = load_launch(shipped("launch/demo.yaml"))
    assert launch.case == "embedded"
    assert Path(launch.camera).is_file()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GOOD | {"deadline": 33}, "deadline: unknown key; the keys are case, camera"),
        (GOOD | {"deadline_ms": "soon"}, "deadline_ms"),
        (GOOD | {"deadline_ms": -1}, "deadline_ms"),
        (GOOD | {"stages": ["registration", "attenuation"]}, "put 'attenuation' before it"),
        (GOOD | {"stages": ["attenuation", "attenuation"]}, "twice"),
        (GOOD | {"stages": ["magic"]}, "stages"),
        (GOOD | {"endpoints": {"frames": "http://x"}}, "endpoints.frames"),
        ({"camera": "cam.yaml"}, "case"),
        ("[1, 2]", "must hold a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_launch_file_is_refused_by_file_and_key(tmp_path, content, said):
    with pytest.raises(LaunchError) as caught:
        load_launch(written(tmp_path, content))
    assert said in str(caught.value)
    assert "launch.yaml" in str(caught.value)


def test_paths_are_relative_to_the_launch_file(tmp_path):
    launch = load_launch(written(tmp_path, GOOD | {"case": "patient/case.yaml"}))
    assert launch.case == str(tmp_path / "patient/case.yaml")
    assert launch.camera == str(tmp_path / "cam.yaml")
