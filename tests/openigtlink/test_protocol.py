"""Bytes against the specification, an independent checksum, and pyigtl as the other side."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.openigtlink.conftest import matrix, packed, reference_crc

from fluoronav.openigtlink.checksum import crc64
from fluoronav.openigtlink.protocol import (
    HEADER_BYTES,
    MOST_BODY_BYTES,
    MessageReader,
    ProtocolError,
    decode_name,
    encode_text,
    pack_message,
    unpack_header,
    unpack_message,
)

WANTED = {"TRANSFORM": 1000, "STRING": 100_000}
ascii_names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
metadata_pairs = st.dictionaries(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    st.text(st.characters(exclude_categories=("C",)), max_size=40), max_size=5,
)  # fmt: skip


def test_the_checksum_is_that_of_ecma_182():
    # The check value of CRC-64/ECMA-182 in the catalogue of parametrised CRC algorithms.
    assert crc64(b"123456789") == 0x6C40DF5F0B497347


@given(st.binary(max_size=300), st.integers(0, 300))
def test_the_checksum_is_that_of_the_bitwise_algorithm_in_one_piece_or_in_two(data, cut):
    assert crc64(data) == reference_crc(data) == crc64(data[cut:], crc64(data[:cut]))


@given(ascii_names, st.binary(max_size=60), st.integers(0, 2**32 * 10**9 - 1), st.none() | metadata_pairs)
def test_a_message_comes_back_as_it_was_packed(name, content, t_ns, metadata):
    data = pack_message("STRING", name, content, t_ns, metadata)
    header = unpack_header(data[:HEADER_BYTES])
    assert (header.kind, header.name, header.t_ns) == ("STRING", name, t_ns)
    assert header.version == (1 if metadata is None else 2) and header.name_full == (len(name) == 20)
    message = unpack_message(header, data[HEADER_BYTES:])
    assert message.content == content
    assert {k: v for k, v in message.metadata.items()} == {
        k: v for k, v in (metadata or {}).items()
    }  # fmt: skip


@given(st.lists(st.sampled_from(["TRANSFORM", "STRING", "IMAGE"]), max_size=6), st.integers(1, 200))
def test_a_stream_is_cut_into_its_messages_however_it_arrives(kinds, step):
    stream = b"".join(pack_message(kind, f"n{k}", bytes(range(k * 13 % 90))) for k, kind in enumerate(kinds))
    reader, found = MessageReader(WANTED), []
    for k in range(0, len(stream), step):
        found += reader.feed(stream[k : k + step])
    assert [m.name for m in found] == [f"n{k}" for k, kind in enumerate(kinds) if kind != "IMAGE"]
    assert reader.counts["not_read"] == kinds.count("IMAGE") and reader.begun_at is None


@given(st.binary(max_size=500))
def test_noise_is_refused_without_other_errors(noise):
    reader = MessageReader(WANTED)
    assert reader.feed(noise) == [] or reader.counts is not None
    reader = MessageReader(WANTED)
    reader.feed(packed("TRANSFORM", "n", noise, version=2))
    assert reader.lost is None


def test_golden_bytes_of_a_transform():
    T = np.eye(4)
    T[:3, 3] = 1.0, 2.0, 3.0
    data = pack_message("TRANSFORM", "StylusToTracker", matrix(T), 1_500_000_000 * 10**9 + 500_000_000)
    assert data.hex() == (
        "0001" "5452414e53464f524d000000" "5374796c7573546f547261636b65720000000000" "59682f0080000000"
        "0000000000000030" + f"{reference_crc(matrix(T)):016x}"
        + "3f800000" "00000000" "00000000" "00000000" "3f800000" "00000000" "00000000" "00000000" "3f800000"
        "3f800000" "40000000" "40400000"
    )  # fmt: skip


def test_the_extended_header_and_metadata_lie_where_the_specification_has_them():
    data = pack_message("STRING", "a", b"xyz", 0, {"Key": "Wert", "ü": "ß"})
    body = data[HEADER_BYTES:]
    assert struct.unpack_from("> H H I I", body) == (12, 2 + 2 * 8, 3 + 4 + 2 + 2, 0)
    assert body[12:15] == b"xyz"
    assert struct.unpack_from("> H H H I H H I", body, 15) == (2, 3, 3, 4, 2, 106, 2)
    assert body[33:] == "KeyWertüß".encode()


def test_a_changed_byte_is_counted_and_the_next_message_is_read():
    good = packed("TRANSFORM", "a", matrix(np.eye(4)))
    bad = bytearray(good)
    bad[58 + 36] ^= 0x80
    reader = MessageReader(WANTED)
    assert len(reader.feed(bytes(bad) + good)) == 1
    assert reader.counts["checksum"] == 1 and reader.lost is None


def test_the_checksum_of_a_body_that_is_not_read_is_tested_too():
    bad = bytearray(packed("IMAGE", "a", bytes(5000)))
    bad[3000] ^= 1
    reader = MessageReader(WANTED)
    reader.feed(packed("IMAGE", "a", bytes(5000)) + bytes(bad))
    assert reader.counts == {"not_read": 1, "checksum": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b.__setitem__(slice(0, 2), b"\x47\x45"), "header"),  # GET / HTTP
        (lambda b: b.__setitem__(slice(0, 2), b"\x00\x00"), "header"),
        (lambda b: b.__setitem__(2, 0xFF), "header"),
        (lambda b: b.__setitem__(2, 0), "header"),
        (lambda b: b.__setitem__(slice(42, 50), struct.pack("> Q", MOST_BODY_BYTES + 1)), "too_long"),
        (lambda b: b.__setitem__(slice(42, 50), struct.pack("> Q", 1001)), "too_long"),
    ],
)
def test_after_a_malformed_header_the_reader_is_lost(change, reason):
    good = packed("TRANSFORM", "a", matrix(np.eye(4)))
    bad = bytearray(good)
    change(bad)
    reader = MessageReader(WANTED)
    assert len(reader.feed(good + bytes(bad))) == 1, "what was whole before is kept"
    assert reader.lost is not None and reader.lost.reason == reason
    assert reader.feed(good) == []


@pytest.mark.parametrize("sizes", [(4, 2, 0), (12, 1, 0), (12, 200, 0), (12, 2, 2**32 - 1), (65535, 0, 0), (12, 10, 0)])
def test_metadata_whose_sizes_do_not_fit_are_refused(sizes):
    body = struct.pack("> H H I I", *sizes, 0) + b"\xff" * 60
    data = packed("STRING", "a", body, version=2)
    with pytest.raises(ProtocolError) as refused:
        unpack_message(unpack_header(data[:58]), data[58:])
    assert refused.value.reason == "metadata"


def test_the_long_name_of_the_metadata_is_the_name():
    long = "VertebralBodyReferenceAToTracker"
    data = packed("TRANSFORM", long[:20], matrix(np.eye(4)), {"IGTL_DEVICE_NAME": long})
    (message,) = MessageReader(WANTED).feed(data)
    assert message.name == long and not message.cut
    (message,) = MessageReader(WANTED).feed(packed("TRANSFORM", long[:20], matrix(np.eye(4))))
    assert message.name == long[:20] and message.cut


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (b"Stylus\0\0garbage", "Stylus"),
        ("Bohrführung".encode("latin-1") + bytes(9), "Bohrführung"),
        ("Bohrführung".encode() + bytes(8), "Bohrführung"),
        ("Brustwirbelkörperßß8".encode()[:20], "Brustwirbelkörperß"),
        ("脊髓".encode(), "脊髓"),
        (b"a\x01b", "a?b"),
        (bytes(20), ""),
    ],
)
def test_a_name_is_read_in_any_encoding(field, name):
    assert decode_name(field) == name


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), st.integers(0, 60))
def test_a_text_is_ascii_where_possible_and_is_cut_between_letters(text, most):
    encoding, data = encode_text(text, most)
    assert len(data) <= most and encoding == (3 if text.isascii() else 106)
    assert text.startswith(data.decode())


def test_a_name_that_does_not_fit_is_refused_before_it_is_sent():
    for kind, name in (("STRING", "x" * 21), ("STRING", "ü"), ("S" * 13, "a")):
        with pytest.raises(ValueError, match="has room for"):
            pack_message(kind, name, b"")


def test_pyigtl_reads_our_messages_and_we_read_its_messages():
    pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed (extra `dev`)")
    theirs = pyigtl.TransformMessage(np.eye(4), timestamp=12.5, device_name="abc")
    theirs.header_version, theirs.metadata = 2, {"TransformStatus": "OK"}
    (message,) = MessageReader(WANTED).feed(theirs.pack())
    assert (message.name, message.header.t_ns, message.metadata) == ("abc", 12_500_000_000, {"TransformStatus": "OK"})
    data = pack_message("TRANSFORM", "abc", matrix(np.eye(4)), 12_500_000_000, {"TransformStatus": "OK"})
    assert data[58:] == theirs.pack()[58:]
    fields = pyigtl.messages.MessageBase.parse_header(data[:58])
    assert fields["timestamp"] == pytest.approx(12.5, abs=1e-6)
