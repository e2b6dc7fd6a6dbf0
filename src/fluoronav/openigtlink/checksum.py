"""The checksum of every OpenIGTLink message: CRC-64 of ECMA-182, most significant bit first, from 0, not inverted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluoronav.kernels import njit

POLYNOMIAL = 0x42F0E1EBA9EA3693
_LANES = 8


def _tables() -> NDArray[np.uint64]:
    """Row k: what a byte does to the checksum when k zero bytes follow it (slicing-by-8)."""
    tables = np.zeros((_LANES, 256), np.uint64)
    for byte in range(256):
        crc = byte << 56
        for _ in range(8):
            crc = ((crc << 1) ^ (POLYNOMIAL if crc >> 63 else 0)) & (2**64 - 1)
        tables[0, byte] = crc
    for k in range(1, _LANES):
        before = tables[k - 1]
        tables[k] = tables[0][(before >> np.uint64(56)).astype(np.intp)] ^ (before << np.uint64(8))
    return tables


_TABLES = _tables()


@njit(cache=True, nogil=True)
def _crc(data, crc, tables):
    eight, top = np.uint64(8), np.uint64(56)
    n = data.size // 8 * 8
    for i in range(0, n, 8):
        word = np.uint64(0)
        for j in range(8):
            word = (word << eight) | np.uint64(data[i + j])
        crc ^= word
        crc = (
            tables[7, crc >> top]
            ^ tables[6, (crc >> np.uint64(48)) & np.uint64(255)]
            ^ tables[5, (crc >> np.uint64(40)) & np.uint64(255)]
            ^ tables[4, (crc >> np.uint64(32)) & np.uint64(255)]
            ^ tables[3, (crc >> np.uint64(24)) & np.uint64(255)]
            ^ tables[2, (crc >> np.uint64(16)) & np.uint64(255)]
            ^ tables[1, (crc >> eight) & np.uint64(255)]
            ^ tables[0, crc & np.uint64(255)]
        )
    for i in range(n, data.size):
        crc = (crc << eight) ^ tables[0, (crc >> top) ^ np.uint64(data[i])]
    return crc


def crc64(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The checksum of some bytes.

    Parameters
    ----------
    data : bytes-like
    crc : int, optional
        Checksum of the bytes before these, where a message comes in parts.

    Returns
    -------
    int
        64 bits.
    """
    return int(_crc(np.frombuffer(data, np.uint8), np.uint64(crc), _TABLES)) if len(data) else crc
