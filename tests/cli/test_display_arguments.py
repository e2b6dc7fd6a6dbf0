"""Arguments of the commands beside the display that cannot be right end in a clear line, before anything is done."""

import pytest

from fluoronav.cli import main


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_a_port_that_is_none_is_refused(capsys, port):
    with pytest.raises(SystemExit) as ended:
        main(["display", "--port", port])
    assert ended.value.code == 2 and "is not a port, 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("endpoint", ["foo", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "udp://127.0.0.1:5552"])
def test_an_endpoint_that_is_none_is_refused(capsys, endpoint):
    with pytest.raises(SystemExit) as ended:
        main(["status", "--endpoint", endpoint])
    assert ended.value.code == 2 and "is not an endpoint" in capsys.readouterr().err


def test_a_recording_into_a_folder_that_is_not_there_is_refused_at_once(tmp_path, capsys):
    assert main(["record", "--out", str(tmp_path / "nowhere" / "x.mcap")]) == 1
    said = capsys.readouterr().err
    assert "there is no folder" in said and not (tmp_path / "nowhere").exists()


def test_a_port_that_is_taken_is_said(capsys):
    import socket

    pytest.importorskip("aiohttp", reason="the extra `display` is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["display", "--port", str(port), "--niceness", "0"]) == 1
    said = capsys.readouterr().err
    assert f"port {port}" in said and "--port" in said and "Errno" not in said
