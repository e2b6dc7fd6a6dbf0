"""The files and commands of docs/it.md: each is checked by the program that reads it, where this computer has that."""

import configparser
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluoronav.cli import build_parser
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "it.md").read_text()
BLOCKS = [m[1] for m in re.finditer(r"^```\n(.*?)^```$", PAGE, re.M | re.S)]
UNITS = sorted((ROOT / "launch" / "systemd").glob("*.service"))
HOST = "or1.example.org"


def block(begin):
    """The block of the page that begins so."""
    return next(b for b in BLOCKS if b.startswith(begin))


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return found or pytest.skip(f"{name} is not installed")


def ended(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    return done.returncode, done.stdout + done.stderr


def test_the_packet_filter_is_understood_by_nftables(tmp_path):
    nft = program("nft")
    rules = tmp_path / "rules.nft"
    rules.write_text(block("table inet"))
    # In a network of its own: nothing of this computer's is touched.
    code, said = ended("unshare", "--user", "--map-root-user", "--net", nft, "--check", "--file", str(rules))
    if "unshare" in said:
        pytest.skip(said.strip())
    assert code == 0, said


def test_the_time_servers_file_is_understood_by_chrony(tmp_path):
    chronyd = program("chronyd")
    file = tmp_path / "or.conf"
    file.write_text(block("server 10."))
    code, said = ended(chronyd, "-p", "-f", str(file))
    assert code == 0 and "maxslewrate 500" in said, said


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.name)
def test_a_units_command_is_one_of_ours_and_is_tried_for_ever(unit):
    lines = configparser.ConfigParser(strict=False, interpolation=None)
    lines.optionxform = str
    lines.read_string(unit.read_text())
    program_path, *words = lines["Service"]["ExecStart"].split()
    assert lines["Unit"]["StartLimitIntervalSec"] == "0" and lines["Service"]["Restart"] == "always"
    assert unit.name in PAGE or "screen" in unit.name
    if program_path == "/opt/fluoronav/bin/fluoronav":
        build_parser().parse_args(words)
    else:
        assert program_path == "/usr/bin/chromium"


def test_systemd_finds_no_fault_in_the_units(tmp_path):
    analyze = program("systemd-analyze")
    for unit in UNITS:  # with a program that this computer has
        (tmp_path / unit.name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text()))
    _, said = ended(analyze, "verify", *(str(tmp_path / unit.name) for unit in UNITS))
    ours = [line for line in said.splitlines() if "fluoronav" in line]
    assert not ours, said


def test_the_launch_file_of_the_page_is_read_in_its_folder(tmp_path):
    command = next(line for line in PAGE.splitlines() if line.startswith("sed "))
    folder = tmp_path / "fluoronav"
    folder.mkdir()
    shutil.copy(ROOT / "calibration" / "demo-carm.yaml", folder)
    code, said = ended("sh", "-c", command.replace("/etc/fluoronav", str(folder)), cwd=ROOT)
    assert code == 0, said
    from fluoronav.geometry import Camera
    from fluoronav.site.launch import load_launch

    launch = load_launch(folder / "launch.yaml")
    assert Path(launch.camera).parent == folder and Camera.load(launch.camera).rows == 1024


def test_a_node_restored_from_the_backup_of_the_page_still_has_what_waits(tmp_path, free_port_of):
    pytest.importorskip("pynetdicom", reason="the extra `pacs` is not installed")
    rsync = program("rsync")
    from pydicom.data import get_testdata_file

    from fluoronav.pacs.outgoing import open_outbox
    from fluoronav.site.init import init_site
    from fluoronav.site.site_file import load_site

    site_folder = tmp_path / "srv" / "or"
    site = load_site(init_site(site_folder, "OR", free_port_of()))
    assert open_outbox(site).add(Path(get_testdata_file("CT_small.dcm")), site.results_to)

    def run(line):
        """A command of the page, in folders of the test."""
        for place in ("srv", "backup"):
            line = re.sub(rf"(?<= )/{place}", str(tmp_path / place), line)
        assert ended("sh", "-c", line.replace("rsync", rsync)) == (0, "")

    run(re.search(r"^install -d .*/backup$", PAGE, re.M)[0])
    run(re.search(r"rsync -aR --delete /srv/or [^;\n]*", PAGE)[0])
    shutil.rmtree(site_folder)
    run(re.search(r"^rsync -a /backup.*$", PAGE, re.M)[0].replace("/backup", f"/backup{tmp_path}"))
    status = site_folder / "status.json"
    _, said = ended(
        sys.executable, "-m", "fluoronav", "pacs", "status", str(site_folder / "SITE.yaml"), "--json", str(status)
    )
    assert [one["state"] for one in json.loads(status.read_text())["outbox"]] == ["waiting"], said
    assert (site_folder / "site.key").stat().st_mode & 0o077 == 0


@pytest.fixture
def nginx(tmp_path, free_port_of):
    """The page's proxy with a certificate of its own; returns a function that starts it before an address."""
    binary = program("nginx")
    openssl = program("openssl")
    certificate, key = tmp_path / "or1.pem", tmp_path / "or1.key"
    made = ended(
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", str(key), "-out", str(certificate),
    )  # fmt: skip
    assert made[0] == 0, made[1]
    running = []

    def start(upstream):
        port = free_port_of()
        server = block("server {").replace("listen 443", f"listen 127.0.0.1:{port}")
        server = server.replace("/etc/ssl/or1.pem", str(certificate)).replace("/etc/ssl/private/or1.key", str(key))
        server = server.replace("127.0.0.1:8765", upstream)
        own = "\n".join(
            f"  {kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        file = tmp_path / "nginx.conf"
        file.write_text(
            f"daemon off;\nmaster_process off;\npid {tmp_path}/nginx.pid;\nerror_log {tmp_path}/error.log;\n"
            f"events {{}}\nhttp {{\n  access_log off;\n{own}\n{server}}}\n"
        )
        code, said = ended(binary, "-t", "-c", str(file), "-p", str(tmp_path))
        assert code == 0, said
        running.append(subprocess.Popen([binary, "-c", str(file), "-p", str(tmp_path)]))
        context = ssl.create_default_context(cafile=str(certificate))

        def connect():
            end = time.monotonic() + 20
            while True:
                try:
                    plain = socket.create_connection(("127.0.0.1", port), 10)
                    return context.wrap_socket(plain, server_hostname=HOST)
                except ConnectionRefusedError:
                    assert time.monotonic() < end
                    time.sleep(0.05)

        return connect

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


@pytest.fixture
def free_port_of():
    def port():
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    return port


def answer(connection, path, *headers):
    """The head of an answer, and what has come of its content."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}", *headers, "", ""]
    connection.sendall("\r\n".join(lines).encode())
    said = b""
    while b"\r\n\r\n" not in said:
        more = connection.recv(65536)
        assert more, said
        said += more
    return said.decode(errors="replace")


def test_page_and_stream_of_the_display_come_through_the_proxy_of_the_page(tmp_path, nginx):
    pytest.importorskip("aiohttp", reason="the extra `display` is not installed")
    command = next(line for line in BLOCKS if line.startswith("fluoronav display")).split()
    words = ["launch/demo.yaml" if w.startswith("/etc/") else w for w in command[1:]]
    server = subprocess.Popen(
        [sys.executable, "-m", "fluoronav", *words, "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        connect = nginx(server.stdout.readline().split()[1].removeprefix("http://").rstrip("/"))
        with connect() as page:
            assert " 200 " in answer(page, "/").splitlines()[0]
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
        with connect() as stream:
            assert " 101 " in answer(stream, "/stream", *upgrade, f"Origin: https://{HOST}").splitlines()[0]
        with connect() as stream:
            assert " 403 " in answer(stream, "/stream", *upgrade, "Origin: https://elsewhere.example").splitlines()[0]
    finally:
        server.terminate()
        server.wait(10)
