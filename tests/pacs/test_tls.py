"""DIMSE over TLS 1.3 with certificates on both sides, made for each test; refusals in words."""

import socket
import ssl
import time

import pytest
from tests.pacs.certificates import Authority
from tests.pacs.conftest import ct_series, send, until
from tests.pacs.test_receiver import echoes

from fluoronav.pacs.tls import TlsError, client_context, server_context
from fluoronav.site.site_file import Tls


@pytest.fixture
def hospital(tmp_path):
    return Authority(tmp_path / "tls")


@pytest.fixture
def secure(make_node, hospital):
    """A node that speaks TLS alone, and sends to itself by TLS."""

    def change(content):
        del content["node"]["insecure"]
        content["node"] |= {"tls": hospital.issue("node"), "acse_timeout_s": 2}
        for peer in content["peers"].values():
            del peer["dimse"]["insecure"]
            peer["dimse"]["tls"] = hospital.issue("client")

    return make_node(change)


def test_a_series_comes_in_and_goes_out_over_tls(secure, hospital, tmp_path):
    context = client_context(Tls(**hospital.issue("scanner")))
    assert set(send(secure.port, ct_series(), tls=(context, "127.0.0.1"))) == {0x0000}
    case = secure.case()
    done = secure.command("send", case / "ct", "--site", secure.file, "--wait", 60)
    assert done.returncode == 0, done.stderr + secure.command("status", secure.file).stdout
    assert secure.status["sent"] == 26


def test_without_tls_with_an_older_one_or_without_our_authority_nobody_gets_in(secure, hospital, tmp_path):
    assert echoes(secure.port) is None
    stranger = Authority(tmp_path / "other", "stranger").issue("scanner")
    known = hospital.issue("scanner")

    def refused(context):
        with socket.create_connection(("127.0.0.1", secure.port), 10) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
                    wrapped.settimeout(10)
                    return wrapped.recv(1) == b""
            except (ssl.SSLError, ConnectionError):
                return True

    old = client_context(Tls(**known))
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    unknown = client_context(Tls(**{**stranger, "ca": known["ca"]}))
    nameless = ssl.create_default_context(cafile=known["ca"])
    expired = client_context(Tls(**known))
    files = hospital.issue("old", days=(-5, -1))
    expired.load_cert_chain(files["certificate"], files["key"])
    assert all(refused(context) for context in (old, unknown, nameless, expired))
    until(lambda: "a caller was refused: the other side's certificate has expired" in secure.log.read_text())
    assert "the caller showed no certificate" in secure.log.read_text()
    assert secure.status["refused"]["TLS handshake failed"] >= 5


def test_a_caller_that_is_silent_in_the_handshake_holds_nobody_up(secure, hospital):
    silent = [socket.create_connection(("127.0.0.1", secure.port)) for _ in range(10)]
    context = client_context(Tls(**hospital.issue("scanner")))
    begun = time.monotonic()
    assert set(send(secure.port, ct_series(count=3), tls=(context, "127.0.0.1"))) == {0x0000}
    for s in silent:
        s.settimeout(15)
        assert s.recv(1) == b""
        s.close()
    assert time.monotonic() - begun < 60


def test_an_archive_with_an_expired_certificate_is_not_spoken_to_and_the_status_says_so(make_node, hospital):
    good, expired = hospital.issue("node"), hospital.issue("old", days=(-5, -1))

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(expired["certificate"], expired["key"])
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)

    def change(content):
        address = {"host": "127.0.0.1", "port": listener.getsockname()[1], "called": "OLD", "tls": good}
        content["peers"]["old"] = {"dimse": address, "timeout_s": 3}

    node = make_node(change)
    folder = node.site.folder.parent / "one"
    folder.mkdir()
    ct_series(count=1)[0].save_as(folder / "a.dcm", enforce_file_format=True)
    node.command("send", folder, "--to", "old", "--site", node.file)

    def said():
        try:
            connection, _ = listener.accept()
            server.wrap_socket(connection, server_side=True).close()
        except (OSError, ssl.SSLError):
            pass
        return [o for o in node.status["outbox"] if "certificate has expired" in o["reason"]]

    (row,) = until(said)
    assert row["state"] == "waiting" and "renewed there" in row["reason"]
    listener.close()


@pytest.mark.parametrize(("days", "said"), [((-5, -1), "expired on .*: renew it"), ((1, 5), "is valid from .*clock")])
def test_our_own_certificate_is_checked_before_anything_listens(hospital, days, said):
    with pytest.raises(TlsError, match=said):
        server_context(Tls(**hospital.issue("node", days=days)))


def test_a_certificate_that_is_not_there_or_has_another_key_is_refused_by_file(hospital, tmp_path):
    files = hospital.issue("node")
    with pytest.raises(TlsError, match="cannot be used as certificate and key"):
        server_context(Tls(**{**files, "key": hospital.issue("other")["key"]}))
    with pytest.raises(TlsError, match=r"none\.pem: cannot be read as a certificate"):
        server_context(Tls(**{**files, "certificate": str(tmp_path / "none.pem")}))
    with pytest.raises(TlsError, match="certificates of authorities"):
        server_context(Tls(**{**files, "ca": files["key"]}))
