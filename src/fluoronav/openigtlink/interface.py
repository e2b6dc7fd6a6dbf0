"""The IPv4 address of a network interface."""

from __future__ import annotations

import socket
import sys

_SIOCGIFADDR = 0x8915  # Linux: asks for the address of an interface


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface, or the address itself.

    Raises
    ------
    ValueError
        It is neither; the text names the interfaces of this computer.
    """
    try:
        return str(socket.inet_ntoa(socket.inet_aton(interface)))
    except OSError:
        pass
    known = [name for _, name in socket.if_nameindex()]
    if interface not in known:
        raise ValueError(f"--interface {interface}: this computer has {', '.join(known)}")
    if sys.platform != "linux":
        raise ValueError(f"--interface {interface}: give its address, for example 192.168.1.20")
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            answer = fcntl.ioctl(asked, _SIOCGIFADDR, interface.encode()[:15].ljust(40, b"\0"))
        except OSError as error:
            raise ValueError(f"--interface {interface}: it has no IPv4 address ({error.strerror})") from error
    return socket.inet_ntoa(answer[20:24])
