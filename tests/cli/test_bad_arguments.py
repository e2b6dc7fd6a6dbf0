"""Arguments that cannot be right end in a line that says what to give, before any work."""

import os

import pytest

from fluoronav.cli import main

ENDPOINTS = [
    ["calibrate", "pivot", "--tool", "kwire", "--endpoint"],
    ["bridge", "igtl", "--endpoint"],
    ["simulate", "embedded", "--frames-endpoint"],
    ["simulate", "embedded", "--tools-endpoint"],
    ["replay", "run.mcap", "--frames-endpoint"],
    ["check", "grabber", "--endpoint"],
]


@pytest.mark.parametrize(
    "bad", ["foo", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp://:5550", "http://a:1", "ipc://"]
)
@pytest.mark.parametrize("verb", ENDPOINTS, ids=" ".join)
def test_what_is_no_endpoint_is_refused_with_what_one_looks_like(verb, bad, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*verb, bad])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "is not an endpoint: give tcp://HOST:PORT" in said and "Traceback" not in said


@pytest.mark.parametrize(
    "good", ["tcp://127.0.0.1:5550", "tcp://*:5550", "tcp://[::1]:5550", "tcp://or1:1", "ipc:///tmp/x"]
)
def test_endpoints_are_taken_as_they_are(good):
    from fluoronav.cli.arguments import endpoint

    assert endpoint(good) == good


@pytest.mark.parametrize("verb", [["demo", "--port", "99999"], ["demo", "--port", "-1"]], ids=" ".join)
def test_what_is_no_port_is_refused(verb, capsys):
    with pytest.raises(SystemExit):
        main(verb)
    assert "is not a port, 0 to 65535" in capsys.readouterr().err


def test_a_result_that_could_not_be_written_is_refused_before_it_is_measured(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for verb in (["bench", "tracking", "--json", str(tmp_path)], ["demo", "--out", str(tmp_path / "file" / "x")]):
        with pytest.raises(SystemExit):
            main(verb)
        assert "folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    [
        ["bench", "witness", "--places", "0"],
        ["bench", "witness", "--runs", "0"],
        ["bench", "latency", "--frames", "0"],
        ["bench", "tracking", "--frames", "0"],
        ["bench", "start", "--runs", "0"],
        ["dicom", "show", "x.dcm", "--frame", "0"],
    ],
    ids=" ".join,
)
def test_a_number_of_none_is_refused_where_nothing_would_be_done(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main(verb)
    assert ended.value.code == 2 and "0 is too few: give 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (["replay", "nowhere.mcap"], "nowhere.mcap: no such file or folder"),
        (["replay", "folder"], "folder: is a folder; name a file"),
        (["site", "init", "file"], "file: is there already"),
        (["site", "init", "new", "--name", ""], "the site's name is empty; give one by --name"),
        (["plan", "check", "file"], "file: must hold a mapping of keys, not NoneType"),
        (["record", "--out", "x.mcap", "port.yaml"], "endpoints.frames: 'tcp://127.0.0.1:99999' is not an endpoint"),
        (["run", "foo.yaml"], "endpoints.out: 'foo' is not an endpoint: give tcp://HOST:PORT"),
        (["display", "foo.yaml"], "endpoints.out: 'foo' is not an endpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_read_or_written_is_said_in_words(verb, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for name, endpoint in (("port", "{frames: 'tcp://127.0.0.1:99999'}"), ("foo", "{out: foo}")):
        (tmp_path / f"{name}.yaml").write_text(f"case: embedded\ncamera: camera.yaml\nendpoints: {endpoint}\n")
    priority = os.getpriority(os.PRIO_PROCESS, 0)
    assert main(verb) == 1
    heard = capsys.readouterr().err
    assert said in heard and "Errno" not in heard and len(heard.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
    assert os.getpriority(os.PRIO_PROCESS, 0) == priority, "nothing began that would have to give way"
