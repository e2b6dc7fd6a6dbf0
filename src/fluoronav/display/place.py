"""What runs on this computer, and at what priority."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def is_of_this_computer(endpoint: str) -> bool:
    """Whether an endpoint that is connected to lies on this computer.

    Parameters
    ----------
    endpoint : str
        ``ipc://path`` or ``tcp://host:port``. A name that cannot be resolved lies elsewhere.
    """
    transport, _, address = endpoint.partition("://")
    return transport in ("ipc", "inproc") or is_own_address(address.rpartition(":")[0].strip("[]"))


def is_own_address(host: str) -> bool:
    """Whether a host is this computer: its address, or a name of it, can be bound here.

    Parameters
    ----------
    host : str
    """
    with suppress(OSError, UnicodeError):
        for family, kind, protocol, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as probe, suppress(OSError):
                probe.bind(address)
                return True
    return False


def take_what_is_left(niceness: int) -> None:
    """Lowers the priority of this process, so that the pipeline beside it comes first.

    Not below that of other programs' idle work: alarms go through this process, too.

    Parameters
    ----------
    niceness : int
        0 to 19; where the process has a higher one already, that stays.
    """
    if not hasattr(os, "getpriority"):
        return  # Windows
    os.nice(max(niceness - os.getpriority(os.PRIO_PROCESS, 0), 0))
    # Linux weighs sessions against one another by a niceness of their own (autogroup). That of a session with other
    # programs, as of a terminal, is not ours.
    if os.getsid(0) == os.getpid():
        with suppress(OSError), open("/proc/self/autogroup", "w") as group:
            group.write(str(niceness))
