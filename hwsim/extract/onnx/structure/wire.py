"""Protocol buffers without their large parts: the outline of a model, and where its weights lie in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Buffer = memoryview
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
"""Field numbers of ModelProto.graph, GraphProto.initializer and TensorProto.raw_data."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class WireError(Exception):
    """Bytes that are no whole protocol buffer."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its number, where its tag starts, and where its content starts and ends."""

    number: int
    length_delimited: bool
    start: int
    content: int
    end: int


@dataclass(frozen=True, slots=True)
class Outside:
    """A tensor without its content, as bytes of a TensorProto, and where the content lies in the file."""

    tensor: bytes
    offset: int
    length: int


def fields(buffer: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of a message at `start`. Raises WireError for what is cut or malformed."""
    at = start
    while at < end:
        tag, content = _varint(buffer, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            stop = _varint(buffer, content, end)[1]
        elif kind == _LENGTH:
            length, content = _varint(buffer, content, end)
            stop = content + length
        elif kind in (_FIXED64, _FIXED32):
            stop = content + (8 if kind == _FIXED64 else 4)
        else:
            raise WireError(f"a field of unknown kind {kind} at byte {at}")
        if stop > end or not number:
            raise WireError(f"{end} bytes, and a field that ends at byte {stop}")
        yield Field(number, kind == _LENGTH, at, content, stop)
        at = stop


def outline(buffer: Buffer, smallest: int) -> tuple[bytes, list[Outside]]:
    """The model without the initializers whose raw content has `smallest` bytes or more; those. Raises WireError."""
    parts: list[bytes] = []
    outside: list[Outside] = []
    for field in fields(buffer, 0, len(buffer)):
        if field.number != GRAPH or not field.length_delimited:
            parts.append(bytes(buffer[field.start : field.end]))
            continue
        graph = b"".join(_graph(buffer, field, smallest, outside))
        parts += [_tag(GRAPH), _as_varint(len(graph)), graph]
    return b"".join(parts), outside


def _graph(buffer: Buffer, graph: Field, smallest: int, outside: list[Outside]) -> Iterator[bytes]:
    for field in fields(buffer, graph.content, graph.end):
        if field.number == INITIALIZER and field.length_delimited and field.end - field.content >= smallest:
            inner = list(fields(buffer, field.content, field.end))
            raw = [part for part in inner if part.number == RAW_DATA and part.length_delimited]
            if len(raw) == 1 and raw[0].end - raw[0].content >= smallest:
                rest = b"".join(bytes(buffer[part.start : part.end]) for part in inner if part is not raw[0])
                outside.append(Outside(rest, raw[0].content, raw[0].end - raw[0].content))
                continue
        yield bytes(buffer[field.start : field.end])


def _varint(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = buffer[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError(f"{end} bytes, and a number that does not end")


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _tag(number: int) -> bytes:
    return _as_varint(number << 3 | _LENGTH)
