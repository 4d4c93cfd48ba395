"""JSON from strangers: bounded before it is parsed, and nothing in it that JSON does not have.

`json.loads` alone recurses as deep as the text nests, reads Infinity and NaN, and keeps the last of two
equal keys; two readers of one such text need not agree.
"""

import json
import math
import re
import typing

import numpy as np

from pqjax.errors import InputError, shown

MOST_DEPTH = 32  # ours nest 7 deep
MOST_DIGITS = 64  # of a number: 64-bit integers have 20

# Possessive, and never without a match where a string begins: one pass, whatever the text.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def parse(text: str | bytes, most_bytes: int) -> typing.Any:
    """Reads JSON in UTF-8, at most so many bytes of it.

    Raises:
      InputError: it is too long or too deep, not JSON, or holds what JSON has not.
    """
    try:
        raw = text.encode() if isinstance(text, str) else bytes(text)
        if len(raw) > most_bytes:
            raise InputError(f"at most {most_bytes} bytes of JSON expected, got {len(raw)}")
        depth = _depth(raw)
        if depth > MOST_DEPTH:
            raise InputError(f"JSON nested at most {MOST_DEPTH} deep expected, got {depth}")
        numbers = {"parse_constant": _constant, "parse_int": _integer, "parse_float": _float}
        return json.loads(raw.decode(), object_pairs_hook=_object, **numbers)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError
        raise InputError(f"not JSON: {error}") from error


def _depth(raw: bytes) -> int:
    """How deep brackets nest outside of strings: no parser needed, no recursion."""
    brackets = _STRING.sub(b"", raw).translate(_STEPS, _NO_BRACKETS)
    if not brackets:
        return 0
    return int(np.cumsum(np.frombuffer(brackets, np.int8), dtype=np.int32).max())


def _object(pairs: list[tuple[str, typing.Any]]) -> dict[str, typing.Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InputError(f"every key once expected, got {shown(name)} twice")
            seen.add(name)
    return found


def _constant(text: str) -> typing.NoReturn:
    raise InputError(f"finite numbers expected, got {text}")


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise InputError(f"numbers of at most {MOST_DIGITS} digits expected, got {len(text)}")
    return int(text)


def _float(text: str) -> float:
    value = float(text) if len(text) <= MOST_DIGITS else math.inf
    if not math.isfinite(value):
        raise InputError(f"finite numbers expected, got {shown(text)}")
    return value
