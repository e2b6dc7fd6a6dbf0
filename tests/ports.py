"""Free ports for servers of tests, apart from those that the system gives to outgoing connections."""

import itertools
import os
import socket

# Tests run side by side, and in several sessions: each process counts on from a place of its own.
_BASE, _SPAN = 20000, 12000  # below Linux's ephemeral ports, which begin at 32768
_numbers = itertools.count(os.getpid() * 997)


def free_port():
    """A port of 127.0.0.1 at which nothing listens, and that this process has not given before."""
    for number in _numbers:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port := _BASE + number % _SPAN))
            except OSError:
                continue
            return port
