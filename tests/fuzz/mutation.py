"""Changes of an artefact: bytes flipped, cut, doubled, spliced; numbers replaced; JSON changed as JSON.

Choices are made by a `pick`: of n things one, from 0. A test's is hypothesis', so that what it finds is
made small; a search's is a generator.
"""

import json
import re
from collections.abc import Callable, Sequence

from hostile import NASTY, at, canonical, places, put

Pick = Callable[[int], int]

_NUMBER = re.compile(rb"-?\d+")
_NUMBERS = [b"0", b"-1", b"1", b"64", b"65", b"4096", b"2147483648", b"9223372036854775808", b"1e308",
            b"18446744073709551616", b"9" * 40, b"9" * 5000, b"0.5", b"NaN"]  # fmt: skip
_WORDS = [0, 1, 2, 16, 48, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 1 << 30, (1 << 31) - 1,
          (1 << 32) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]  # fmt: skip
_MOST_RUN = 40


def _span(data: bytes, pick: Pick) -> tuple[int, int]:
    begin = pick(len(data) + 1)
    return begin, min(len(data), begin + 1 + pick(_MOST_RUN))


def _flip(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    if not data:
        return b"\0"
    i = pick(len(data))
    return data[:i] + bytes([data[i] ^ 1 << pick(8)]) + data[i + 1 :]


def _cut(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    begin, end = _span(data, pick)
    return data[:begin] + data[end:]


def _end(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    return data[: pick(len(data) + 1)]


def _twice(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    begin, end = _span(data, pick)
    return data[:end] + data[begin:]


def _insert(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    i = pick(len(data) + 1)
    return data[:i] + bytes(pick(256) for _ in range(1 + pick(4))) + data[i:]


def _splice(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    """The beginning of one and the end of another."""
    other = others[pick(len(others))]
    return data[: pick(len(data) + 1)] + other[pick(len(other) + 1) :]


def _number(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    """Another number in a text."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return _word(data, others, pick)
    match = found[pick(len(found))]
    return data[: match.start()] + _NUMBERS[pick(len(_NUMBERS))] + data[match.end() :]


def _word(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    """Another integer of 1 to 8 bytes, little-endian."""
    size = (1, 2, 4, 8)[pick(4)]
    value = _WORDS[pick(len(_WORDS))] & (1 << 8 * size) - 1
    i = pick(max(1, len(data) - size + 1))
    return data[:i] + value.to_bytes(size, "little") + data[i + size :]


def _json(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    """One place of a JSON text, from its first brace on, has another value, or none."""
    begin = next((i for i, byte in enumerate(data[:64]) if byte in b"{["), None)
    if begin is None:
        return _number(data, others, pick)
    try:
        tree, end = json.JSONDecoder().raw_decode(data[begin:].decode("latin-1"))
    except (ValueError, RecursionError):
        return _number(data, others, pick)
    every = list(places(tree))
    path = every[pick(len(every))]
    try:
        text = canonical(_changed(tree, path, every, pick))
    except (ValueError, RecursionError):  # integers of more digits than are written
        return data
    return data[:begin] + text + data[begin + end :]


def _changed(tree, path, every, pick: Pick):
    kind = pick(5)
    if kind == 0 and path:  # left out
        parent = at(tree, path[:-1])
        parent = dict(parent) if isinstance(parent, dict) else list(parent)
        del parent[path[-1]]
        return put(tree, path[:-1], parent)
    if kind == 1:  # another place's
        return put(tree, path, at(tree, every[pick(len(every))]))
    here = at(tree, path)
    if kind == 2 and type(here) is int:
        return put(tree, path, here + (-1, 1, 2, 8, 1000)[pick(5)])
    if kind == 3 and isinstance(here, list) and here:
        return put(tree, path, [*here, here[pick(len(here))]])
    return put(tree, path, NASTY[pick(len(NASTY))])


_CHANGES = (_flip, _cut, _end, _twice, _insert, _splice, _number, _word, _json, _json)


def changed(data: bytes, others: Sequence[bytes], pick: Pick) -> bytes:
    """One change; `others` are artefacts to splice with."""
    return _CHANGES[pick(len(_CHANGES))](data, others, pick)
