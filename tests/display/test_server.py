"""The display's server with hostile clients: host names, origins, sizes, silence, crowds, and requests."""

import asyncio
import json
import socket
import time
from contextlib import asynccontextmanager, suppress

import msgpack
import pytest
from tests.display.pipeline_stand_in import CASE, alert, health
from tests.display.test_display import outside

from fluoronav.geometry import Camera
from fluoronav.paths import shipped
from fluoronav.site.audit import AuditTrail

aiohttp = pytest.importorskip("aiohttp", reason="the extra `display` is not installed")
from fluoronav.display.admission import LIMITS, SECURITY  # noqa: E402
from fluoronav.display.hub import Hub  # noqa: E402
from fluoronav.display.screen_requests import Person  # noqa: E402
from fluoronav.display.server import MAX_STREAMS, REPLACED, DisplayServer  # noqa: E402

KEY = "the-key"


def packb(message) -> bytes:
    return msgpack.packb(message) or b""


class Served:
    """A server in this process, and ways to ask it."""

    def __init__(self, server, port, stand_in):
        self.server, self.port, self.stand_in = server, port, stand_in

    async def raw(self, request: bytes, seconds: float = 60.0) -> bytes:
        """All that comes back until the server ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            return await asyncio.wait_for(reader.read(), seconds)
        finally:
            writer.close()

    async def asked(self, path="/", method="GET", **headers):
        """Status and headers of the answer."""
        host = headers.pop("Host", f"127.0.0.1:{self.port}")
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        answer = await self.raw("\r\n".join([*lines, "", ""]).encode())
        return status(answer)

    def stream(self, session, key="", screen="", **options):
        address = f"ws://127.0.0.1:{self.port}/stream?key={key}&screen={screen}"
        return session.ws_connect(address, max_msg_size=0, **options)


def status(answer: bytes):
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body.decode(errors="replace")


def head_of(data: bytes):
    return json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])


async def heard(stream, topic, seconds=60.0):
    """The next message of a topic."""
    async with asyncio.timeout(seconds):
        while True:
            message = await stream.receive()
            assert message.type == aiohttp.WSMsgType.BINARY, message
            if (head := head_of(message.data))["topic"] == topic:
                return head


@asynccontextmanager
async def serving(tmp_path, stand_in, **options):
    hub = Hub(stand_in.endpoints["out"], stand_in.endpoints["frames"])
    server = DisplayServer(
        hub, stand_in.endpoints["requests"], Camera.load(shipped("calibration/demo-carm.yaml")), lambda name: CASE,
        AuditTrail(tmp_path / "audit", "display"), KEY, **options,
    )  # fmt: skip

    async def answer():
        while True:
            stand_in.answer()
            await asyncio.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as at:
        async with server.listening(at):
            answering = asyncio.create_task(answer())
            try:
                yield Served(server, at.getsockname()[1], stand_in)
            finally:
                answering.cancel()


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:{}", None, 200), ("localhost:{}", "http://localhost:{}", 200), ("[::1]:{}", None, 200),
        ("10.0.0.7", None, 200), ("DISPLAY.or1:{}", "https://display.or1:{}", 200),
        ("evil.example:{}", "http://evil.example:{}", 403), ("evil.example", None, 403), ("", None, 403),
        ("127.0.0.1.evil.example", None, 403), ("127.0.0.1:{}@evil.example", None, 403), ("0x7f000001", None, 403),
        ("127.0.0.1:{}", "http://evil.example", 403), ("127.0.0.1:{}", "null", 403),
        ("127.0.0.1:{}", "http://127.0.0.1:1", 403), ("localhost:{}", "http://127.0.0.1:{}", 403),
        ("127.0.0.1:{}", "ftp://127.0.0.1:{}", 403), ("127.0.0.1:{}", "http://[bad", 403),
    ],
)  # fmt: skip
def test_only_addresses_and_allowed_names_are_served_and_only_to_their_own_pages(
    tmp_path, stand_in, host, origin, expected
):
    async def run():
        async with serving(tmp_path, stand_in, allowed_hosts=["display.or1"]) as served:
            port = served.port
            said = {"Host": host.format(port)} | ({"Origin": origin.format(port)} if origin else {})
            for path in ("/", "/page/app.js"):
                assert (await served.asked(path, **said))[0] == expected
            upgrade = {
                "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }  # fmt: skip
            lines = ["GET /stream HTTP/1.1", *(f"{k}: {v}" for k, v in (said | upgrade).items()), "", ""]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write("\r\n".join(lines).encode())
            first = await asyncio.wait_for(reader.readline(), 60)
            writer.close()
            assert int(first.split()[1]) == (101 if expected == 200 else 403)

    outside(run())


def test_two_hosts_or_none_are_refused(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served:
            one = f"Host: 127.0.0.1:{served.port}\r\n"
            for hosts in (one + "Host: evil.example\r\n", ""):
                answer = await served.raw(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
                assert status(answer)[0] in (400, 403)

    outside(run())


def test_every_answer_has_the_security_headers(tmp_path, stand_in):
    def failing(name):
        raise RuntimeError("a fault of the display's own")

    async def run():
        async with serving(tmp_path, stand_in) as served:
            served.server._load_case = failing
            host = f"Host: 127.0.0.1:{served.port}\r\n"
            large = {"Content_Length": LIMITS.max_bytes + 1}
            answers = [
                await served.asked("/"), await served.asked("/page/app.js"), await served.asked("/nothing"),
                await served.asked("/page/nothing.js"), await served.asked("/", Host="evil.example"),
                await served.asked("/", "POST"), await served.asked("/", "POST", **large), await served.asked("/case"),
                status(await served.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")),
                status(await served.raw(f"GET / HTTP/9.9\r\n{host}\r\n".encode())),
                status(await served.raw(b"GET / HTTP/1.1\r\n" + host.encode() + b"X: " + b"y" * 20000 + b"\r\n\r\n")),
            ]  # fmt: skip
            assert [a[0] for a in answers] == [200, 200, 404, 404, 403, 405, 413, 500, 400, 400, 400]
            for _, headers, _ in answers:
                assert {k: headers.get(k) for k in SECURITY} == SECURITY
            assert "RuntimeError" not in answers[7][2] and "fault" not in answers[7][2]

    outside(run())


def test_an_unfinished_request_is_ended(tmp_path, stand_in):
    """A silent connection, half a head, a head that trickles, and a body that never comes."""

    async def half(served, begin, trickle=b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        try:
            writer.write(begin)

            async def more():
                while True:
                    await asyncio.sleep(0.3)
                    writer.write(trickle)

            task = asyncio.create_task(more()) if trickle else None
            with suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), LIMITS.idle_s + 60)
            if task:
                task.cancel()
        finally:
            writer.close()

    async def run():
        async with serving(tmp_path, stand_in) as served:
            host = f"Host: 127.0.0.1:{served.port}\r\n".encode()
            await asyncio.gather(
                half(served, b""),
                half(served, b"GET / HTTP/1.1\r\n" + host),
                half(served, b"GET / HTTP/1.1\r\n" + host, b"X: y\r\n"),
                half(served, b"GET / HTTP/1.1\r\n" + host + b"\r\n"),  # answered, and then silent
                half(served, b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 9\r\n\r\n"),
                half(served, b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 60000\r\n\r\n", b"x"),
            )

    outside(run())


def test_a_crowd_of_silent_connections_does_not_keep_others_out(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            stream = await served.stream(session, KEY)
            crowd = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(200)]
            assert (await served.asked("/"))[0] == 200
            await heard(stream, "link")
            await heard(stream, "link")  # a stream is none of them
            for _, writer in crowd:
                writer.close()

    outside(run())


def test_watchers_never_take_the_place_of_a_screen_that_controls(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            watching = [await served.stream(session, screen=str(k)) for k in range(MAX_STREAMS["watch"])]
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await served.stream(session)
            controls = [await served.stream(session, KEY) for _ in range(MAX_STREAMS["control"])]
            assert [(await heard(s, "hello"))["role"] for s in (watching[-1], controls[-1])] == ["watch", "control"]
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await served.stream(session, KEY)
            await controls.pop().close()
            controls.append(await served.stream(session, KEY))
            await heard(controls[-1], "hello")

    outside(run())


def test_a_controlling_screen_that_returns_replaces_its_dead_stream(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            # Dead: it answers neither pings nor the end.
            first = last = await served.stream(session, KEY, "screen-1", autoping=False)
            for _ in range(2 * MAX_STREAMS["control"]):
                last = await served.stream(session, KEY, "screen-1")
                await heard(last, "hello")
            other = await served.stream(session, "", "screen-1")  # who only watches ends no controlling screen
            await heard(other, "hello")
            await heard(last, "link")
            while (message := await first.receive(60)).type == aiohttp.WSMsgType.BINARY:
                pass
            assert message.type == aiohttp.WSMsgType.CLOSE and message.data == REPLACED

    outside(run())


def test_a_dead_viewer_frees_its_place(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            stream = await served.stream(session, KEY, autoping=False)
            await heard(stream, "hello")
            async with asyncio.timeout(60):
                while served.server.hub.viewers:
                    await asyncio.sleep(0.1)

    outside(run())


def test_a_watcher_that_reads_nothing_costs_no_memory_and_loses_no_alert(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            stream = await served.stream(session)
            await heard(stream, "hello")
            (viewer,) = served.server.hub.viewers
            viewer.wake = asyncio.Event()  # nothing is taken from it any more, as from a socket that is full
            await asyncio.sleep(0.2)
            hub = served.server.hub
            for k in range(2000):
                hub.take([b"overlay/x", packb({"v": 1, "seq": k, "text": "x" * 1000})])
                hub.take([b"alert/x", packb(alert(k % 40, "high", "changed", f"{k}"))])
                hub.take([b"health/x", packb(health())])
                head = {"v": 1, "seq": k, "t_acq": k, "rows": 64, "cols": 64, "dtype": "u1", "bits": 8}
                hub.take([b"view/x", packb(head), bytes(4096)])
                hub.say("link", {"heard": True})
            waiting = [*viewer.replies, *viewer.states.values(), *viewer.alerts.values(), *viewer.overlays]
            assert sum(map(len, waiting)) < 200_000 and len(waiting) < 60
            heads = [head_of(m) for m in waiting]
            (everything,) = [h["open"] for h in heads if h["topic"] == "alarms"]
            later = {h["id"]: h["text"] for h in heads if h["topic"] == "alert"}
            assert {a["id"]: a["text"] for a in everything} | later == {f"a{k % 40}": f"{k}" for k in range(1960, 2000)}
            assert [h["seq"] for h in heads if h["topic"] == "overlay"] == list(range(1994, 2000))
            assert viewer.picture is not None and head_of(viewer.picture.message(None))["seq"] == 1999
            for k in range(1000):
                hub.take([b"alert/x", packb(alert(100 + k, "low"))])
            assert len(viewer.alerts) <= 257, "more than are kept are told as a list"

    outside(run())


def test_an_overlay_with_invalid_numbers_is_sent_without_them(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            stream = await served.stream(session)
            await heard(stream, "hello")
            inf, nan = float("inf"), float("nan")
            served.server.hub.take(
                [
                    b"overlay/x",
                    packb(
                        {
                            "v": 1, "seq": 5, "distances": [{"distance_mm": inf, "lower_mm": -inf, "level": "danger"}],
                            "registration": {"T_camera_ct": [1.0] * 15 + [nan], "tre_mm": 2.0}, "bytes": b"\xff",
                            "outlines": [{"paths": [[[1.0, 2.0], [nan, 3.0]]]}], b"key": 1,
                        }
                    ),
                ]
            )  # fmt: skip
            overlay = await heard(stream, "overlay")
            assert overlay["distances"] == [{"distance_mm": None, "lower_mm": None, "level": "danger"}]
            assert overlay["registration"] == {"T_camera_ct": None, "tre_mm": 2.0}, "a pose without a number is none"
            assert overlay["outlines"] == [{"paths": [[[1.0, 2.0], None]]}] and overlay["bytes"] is None

    outside(run())


@pytest.mark.parametrize(
    "wrong", [{"rows": -4, "cols": -4}, {"rows": 0}, {"dtype": "f8"}, {"bits": 99}, {"rows": 10**9}, {"t_acq": "now"}]
)
def test_a_malformed_picture_is_skipped_and_the_stream_goes_on(stand_in, wrong):
    hub = Hub(stand_in.endpoints["out"], stand_in.endpoints["frames"])
    head = {"v": 1, "seq": 1, "t_acq": 1, "rows": 4, "cols": 4, "dtype": "u1", "bits": 8}
    with pytest.raises((ValueError, TypeError)):
        hub.take([b"view/x", packb(head | wrong), bytes(16)])
    hub.take([b"view/x", packb(head), bytes(16)])


async def replies(stream, texts):
    for text in texts:
        await stream.send_str(text)
    return [await heard(stream, "reply") for _ in texts]


def test_requests_are_passed_on_with_new_ids_and_a_time(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            ask = json.dumps({"id": 1, "op": "registration.accept", "user": "Dr. Test"})
            for _ in range(2):  # two screens count alike
                (reply,) = await replies(await served.stream(session, KEY), [ask])
                assert reply["id"] == 1 and reply["ok"] and reply["result"] == {"accepted": True}
            first, second = stand_in.asked
            assert first["id"] != second["id"] and abs(time.time_ns() - first["t"]) < 10e9
            assert first["user"] == "Dr. Test"
            stand_in.refusals["case.confirm"] = {"code": "invalid", "text": "args.case is not the case that runs"}
            ask = json.dumps({"id": "x", "op": "case.confirm", "args": {"case": "other@1"}})
            (reply,) = await replies(await served.stream(session, KEY), [ask])
            assert reply["id"] == "x" and "not the case that runs" in reply["error"]["text"]

    outside(run())


def test_who_the_patient_is_is_told_to_screens_that_control_alone(tmp_path, stand_in):
    async def run():
        who = {"who": lambda case: Person("Doe, Jane", "4711", "1970-01-31")}
        async with serving(tmp_path, stand_in, **who) as served, aiohttp.ClientSession() as session:
            served.server.hub.health = {"case": "PAAAAAAAAAAAAAAAA@0123"}
            for key, name in ((KEY, "Doe, Jane"), ("", "")):
                (reply,) = await replies(await served.stream(session, key), ['{"id": 1, "op": "patient.info"}'])
                assert reply["result"]["pseudonym"] == "PAAAAAAAAAAAAAAAA" and reply["result"]["name"] == name
                assert bool(reply["result"]["patient_id"]) == bool(reply["result"]["birth_date"]) == bool(name)
        assert "Doe" not in "".join(file.read_text() for file in (tmp_path / "audit").glob("*.jsonl"))

    outside(run())


def test_a_pipeline_that_does_not_answer_is_reported_and_the_next_request_is_answered(tmp_path, stand_in):
    stand_in.silent.add("registration.start")

    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            asks = [json.dumps({"id": k, "op": op}) for k, op in enumerate(("registration.start", "case.info"))]
            unanswered, answered = await replies(await served.stream(session, KEY), asks)
            assert unanswered["error"]["code"] == "unreachable" and "not known" in unanswered["error"]["text"]
            assert answered["ok"] and answered["id"] == 1

    outside(run())


def test_malformed_requests_are_refused_and_break_nothing(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            stream = await served.stream(session, KEY)
            wrong = [
                "][", "[" * 60000, "5", '{"id": [1], "op": "status"}', '{"op": "status"}',
                '{"id": 1, "op": "x", "args": 5}', '{"id": 1, "op": "plan.set", "args": {"x": NaN}}',
            ]  # fmt: skip
            assert {r["error"]["code"] for r in await replies(stream, wrong)} == {"invalid"}
            # Numbers that MessagePack does not know.
            huge = f'{{"id": 7, "op": "plan.set", "args": {{"x": {10**40}}}}}'
            (reply,) = await replies(stream, [huge])
            assert reply["error"]["code"] == "invalid" and reply["id"] == 7
            (reply,) = await replies(stream, ['{"id": 8, "op": "case.info"}'])
            assert reply["ok"]
            await stream.send_str("x" * (LIMITS.max_bytes + 1))
            while (message := await stream.receive(60)).type == aiohttp.WSMsgType.BINARY:
                pass
            assert message.type == aiohttp.WSMsgType.CLOSE and message.data == 1009

    outside(run())


def test_requests_beyond_the_queue_are_refused(tmp_path, stand_in):
    stand_in.silent.add("case.info")

    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            stream = await served.stream(session, "")
            for k in range(40):
                await stream.send_str(json.dumps({"id": k, "op": "case.info"}))
            codes = [(await heard(stream, "reply"))["error"]["code"] for _ in range(20)]
            assert codes.count("busy") >= 19

    outside(run())


def test_forbidden_requests_in_the_trail_are_bounded(tmp_path, stand_in):
    async def run():
        async with serving(tmp_path, stand_in) as served, aiohttp.ClientSession() as session:
            stream = await served.stream(session)
            text = json.dumps({"id": 1, "op": "mode.set", "args": {"mode": "x" * 60000}, "user": "y" * 3000})
            for _ in range(60):
                (reply,) = await replies(stream, [text])
                assert reply["error"]["code"] == "forbidden"
        (file,) = (tmp_path / "audit").glob("*.jsonl")
        assert file.stat().st_size < 10_000 and 1 <= len(file.read_text().splitlines()) <= 10

    outside(run())


def test_a_browser_that_goes_away_while_it_is_answered_is_no_error(tmp_path, stand_in, caplog):
    async def run():
        async with serving(tmp_path, stand_in) as served:
            request = f"GET /case/ct HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode()
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", served.port)
                writer.write(request)
                await writer.drain()
                await asyncio.sleep(0.02)
                writer.transport.abort()
            await asyncio.sleep(2.0)  # for the answers to be made

    outside(run())
    assert not [r for r in caplog.records if "Error handling request" in r.getMessage()]
