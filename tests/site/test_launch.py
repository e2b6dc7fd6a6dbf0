"""Launch files are validated before anything starts."""

import pytest
import yaml

from fluoronav.paths import shipped
from fluoronav.site.launch import LaunchError, load_launch

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


@pytest.mark.parametrize("source", ["../../..", "a/b", ".hidden", "", "x" * 65, "a b", "carm0\n", "ä", "a\\b"])
def test_a_source_that_could_lead_out_of_a_folder_is_refused(tmp_path, source):
    with pytest.raises(LaunchError, match="source"):
        load_launch(written(tmp_path, GOOD | {"source": source}))


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb", "a\x1b[2J"])
def test_a_case_with_an_unprintable_name_is_refused(tmp_path, name):
    with pytest.raises(LaunchError, match="cases"):
        load_launch(written(tmp_path, GOOD | {"cases": {name: "case.yaml"}}))


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://*:5552", "tcp://0.0.0.0:5552", "tcp://[::]:5552", "tcp://eth0:5552", "tcp://192.168.1.7:5552",
        "tcp://[fe80::1%eth0]:5552", "tcp://localhost.example.org:5552", "tcp://127.0.0.1.example.org:5552",
        "tcp://[::ffff:10.0.0.1]:5552",
    ],
)  # fmt: skip
def test_an_endpoint_open_to_other_computers_is_refused_unless_the_file_allows_it(tmp_path, endpoint):
    content = GOOD | {"endpoints": {"requests": endpoint}}
    with pytest.raises(LaunchError, match="allow_unauthenticated"):
        load_launch(written(tmp_path, content))
    assert load_launch(written(tmp_path, content | {"allow_unauthenticated": True})).unauthenticated


@pytest.mark.parametrize(
    "endpoint",
    [
        "foo", "tcp://:5552", "tcp://5552", "tcp://::5552", "tcp://127.0.0.1:99999", "tcp://127.0.0.1",
        "tcp://127.0.0.1:1;0.0.0.0:5552",
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused_whatever_the_file_allows(tmp_path, endpoint):
    content = GOOD | {"endpoints": {"requests": endpoint}, "allow_unauthenticated": True}
    with pytest.raises(LaunchError, match="is not an endpoint: give tcp://HOST:PORT"):
        load_launch(written(tmp_path, content))


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:5552", "tcp://127.1.2.3:*", "tcp://[::1]:5552", "tcp://localhost:5552", "tcp://LOCALHOST:5552",
        "tcp://lo:5552", "ipc:///run/fluoronav/requests", "tcp://[::ffff:127.0.0.1]:5552",
    ],
)  # fmt: skip
def test_an_endpoint_of_this_computer_alone_needs_no_permission(tmp_path, endpoint):
    launch = load_launch(written(tmp_path, GOOD | {"endpoints": {"requests": endpoint}}))
    assert not launch.unauthenticated
