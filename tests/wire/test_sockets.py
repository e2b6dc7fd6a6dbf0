"""Sockets as every process opens them."""

import asyncio
import time

import pytest
import zmq
import zmq.asyncio

from fluoronav.wire import subscriber


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_a_subscriber_hears_its_topics_alone_and_has_its_limits(context, tmp_path):
    endpoint = f"ipc://{tmp_path}/out"
    out = context.socket(zmq.PUB)
    out.bind(endpoint)
    socket = subscriber(context, endpoint, ["alert/", b"tool/"], high_water=3, max_bytes=1000, receive_buffer=2**16)
    options = zmq.RCVHWM, zmq.LINGER, zmq.MAXMSGSIZE, zmq.RCVBUF
    assert [socket.getsockopt(o) for o in options] == [3, 0, 1000, 2**16]
    end = time.monotonic() + 10
    while not socket.poll(20):
        assert time.monotonic() < end
        out.send_multipart([b"frame/a", b""])
        out.send_multipart([b"tool/a", b""])
    assert socket.recv_multipart() == [b"tool/a", b""]


def test_the_limits_of_a_subscriber_are_zeromq_s_own_unless_given(context, tmp_path):
    endpoint = f"ipc://{tmp_path}/out"
    plain, ours = context.socket(zmq.SUB), subscriber(context, endpoint, [""])
    for option in (zmq.RCVHWM, zmq.MAXMSGSIZE, zmq.RCVBUF):
        assert ours.getsockopt(option) == plain.getsockopt(option)


def test_a_subscriber_of_an_event_loop_is_one(tmp_path):
    async def kind():
        context = zmq.asyncio.Context()
        socket = subscriber(context, f"ipc://{tmp_path}/out", [""])
        try:
            return type(socket)
        finally:
            socket.close()
            context.term()

    assert asyncio.run(kind()) is zmq.asyncio.Socket
