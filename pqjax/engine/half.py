"""One party's half of a prepared inference, as bytes and back, so that it outlives its session.

It is all that the online phase draws on: what layers did ahead of time, and the random OTs that they
will draw, set aside with hashes of their own. So a half needs nothing of the session that it comes from,
and two halves have nothing in common but their delta.

    8 bytes   magic
    4         length of what follows
    then      JSON: of every array where it belongs, its dtype and its shape
    then      the arrays, in that order

Only a party's own authenticated files are read so (`pqjax.engine.store`); they are held to this form all
the same.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np

from pqjax.crypto.prg import Randomness
from pqjax.engine.execute import Ends, Preparation
from pqjax.errors import CheckpointError, InputError, PqjaxError, StoreError, shown
from pqjax.graph.strict_json import parse
from pqjax.he import Modulus, Secret
from pqjax.linear import ahead, by_rlwe
from pqjax.linear.keys import OwnKey
from pqjax.ot.stocked import Kept, Stocked, StockedReceiver, StockedSender
from pqjax.planner.plan import Plan
from pqjax.protocols.party import Party
from pqjax.schema import Between, Length, read
from pqjax.wire.cost import total

_MAGIC = b"pqhalf 1"
_MOST_HEADER_BYTES = 4 << 20
_DTYPES = {f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
# What layers leave for the online phase, by a name in files; None is not kept.
_KINDS: dict[str, type] = {"ahead": ahead.Ready, "rlwe": by_rlwe.Ready, "key": OwnKey}
_ENDS = ("sender", "receiver")

Where = tuple[str, ...]  # a layer or an end, its kind, the field, and what part of the field


@dataclasses.dataclass(frozen=True)
class _Array:
    """An array's line in the header."""

    where: Annotated[tuple[str, ...], Length(4, 4)]
    dtype: str
    shape: Annotated[tuple[Annotated[int, Between(0, 1 << 40)], ...], Length(0, 8)]


def may_be_kept(plan: Plan) -> bool:
    """Whether all OTs of an inference are in store before it."""
    return isinstance(plan.preset.source, Stocked) and not plan.streamed


def set_aside(party: Party, plan: Plan, made: Preparation, name: bytes) -> Preparation:
    """A preparation with the OTs that it will draw taken out of the party's store; both at once.

    `name` is of this preparation alone, at both parties.
    """
    assert isinstance(party.sender, StockedSender) and isinstance(party.receiver, StockedReceiver)
    drawn = total(step.cost.online for step in plan.steps).rots
    rank = party.rank
    made.ends = (
        party.sender.set_aside(drawn[rank], name),
        party.receiver.set_aside(drawn[1 - rank], name),
    )
    return made


def to_bytes(made: Preparation) -> bytes:
    """A preparation that was set aside; nothing is left of it."""
    assert made.ends is not None
    arrays: dict[Where, np.ndarray] = {}
    for name, end in zip(_ENDS, made.ends, strict=True):
        assert isinstance(end, StockedSender | StockedReceiver)
        arrays |= dict(_apart((name, "end"), end.kept()))
    names = {kind: name for name, kind in _KINDS.items()}
    for layer, ready in made.take_all().items():
        if ready is not None:
            if type(ready) not in names:
                raise StoreError(f"{layer}: what it prepares cannot be kept")
            arrays |= dict(_apart((f"layer {layer}", names[type(ready)]), ready))
    flat = {
        where: np.ascontiguousarray(x, x.dtype.newbyteorder("<")) for where, x in arrays.items()
    }
    lines = [
        {"where": where, "dtype": f"<{x.dtype.kind}{x.dtype.itemsize}", "shape": x.shape}
        for where, x in flat.items()
    ]
    head = json.dumps(lines).encode()
    length = len(head).to_bytes(4, "little")
    return b"".join([_MAGIC, length, head, *(x.tobytes() for x in flat.values())])


def from_bytes(data: bytes, plan: Plan, rank: int) -> Preparation:
    """What `to_bytes` made of a preparation for this plan, at this rank.

    Raises:
      CheckpointError: it is of another form, or for another plan.
    """
    try:
        arrays = _arrays(data)
        made = Preparation()
        for step in plan.steps:
            name = step.node.name
            made.put(name, _together(arrays, f"layer {name}", _KINDS))
        kept = [_together(arrays, name, {"end": Kept}) for name in _ENDS]
        if arrays or None in kept:
            raise InputError("it is of other layers")
        made.ends = _ends(kept, total(step.cost.online for step in plan.steps).rots, rank)
        return made
    except (InputError, TypeError, ValueError, KeyError) as error:
        why = error if isinstance(error, PqjaxError) else type(error).__name__
        raise CheckpointError(f"no preparation for this plan: {why}") from error


def _ends(kept: list[Kept], drawn: tuple[int, int], rank: int) -> Ends:
    for end, n, sends in zip(kept, (drawn[rank], drawn[1 - rank]), (True, False), strict=True):
        known = end.delta if sends else end.bits
        if known is None or end.rows.shape != (n, 2) or known.shape != ((2,) if sends else (n,)):
            raise InputError(f"{n} random OTs expected")
    return StockedSender.of(kept[0], rank), StockedReceiver.of(kept[1], 1 - rank)


def _arrays(data: bytes) -> dict[Where, np.ndarray]:
    """The arrays in a file, each by where it belongs."""
    begin = len(_MAGIC) + 4
    if data[: len(_MAGIC)] != _MAGIC:
        raise InputError("no such file, or one of another version")
    at = begin + int.from_bytes(data[len(_MAGIC) : begin], "little")
    found: dict[Where, np.ndarray] = {}
    for line in read(tuple[_Array, ...], parse(data[begin:at], _MOST_HEADER_BYTES)):
        if line.dtype not in _DTYPES or line.where in found:
            raise InputError("an array of integers at every place expected")
        n, dtype = math.prod(line.shape), np.dtype(line.dtype)
        if n * dtype.itemsize > len(data) - at:
            raise InputError("it is cut off")
        # A copy: arrays of a half are used up at different times.
        found[line.where] = np.frombuffer(data, dtype, n, at).reshape(line.shape).copy()
        at += n * dtype.itemsize
    if at != len(data):
        raise InputError("there is more in it than it says")
    return found


def _apart(where: tuple[str, str], whole: Any) -> Iterator[tuple[Where, np.ndarray]]:
    """The fields of a dataclass as arrays; those that are None are left out."""
    for field in dataclasses.fields(whole):
        value = getattr(whole, field.name)
        if isinstance(value, np.ndarray):
            yield (*where, field.name, "array"), value
        elif isinstance(value, bytes):
            yield (*where, field.name, "bytes"), np.frombuffer(value, np.uint8)
        elif isinstance(value, Secret):
            ring, s, met = value.kept()
            yield (*where, field.name, "s"), s
            yield (*where, field.name, "ring"), np.array([ring.degree, ring.bits, ring.static])
            yield (*where, field.name, "met"), np.frombuffer(json.dumps(met).encode(), np.uint8)
        elif value is not None:
            raise StoreError(f"{where[0]}: its {field.name} cannot be kept")


def _together(arrays: dict[Where, np.ndarray], name: str, kinds: dict[str, type]) -> Any:
    """Takes what `_apart` made of one dataclass out of all arrays; None where there is nothing."""
    mine = {where: arrays.pop(where) for where in list(arrays) if where[0] == name}
    if not mine:
        return None
    (kind,) = {where[1] for where in mine}
    fields: dict[str, Any] = dict.fromkeys(x.name for x in dataclasses.fields(kinds[kind]))
    parts: dict[tuple[str, str], np.ndarray] = {}
    for (_, _, field, part), value in mine.items():
        parts[field, part] = value
    for field, part in parts:
        if part == "array":
            fields[field] = parts[field, part]
        elif part == "bytes":
            fields[field] = parts[field, part].tobytes()
        elif part == "s":
            degree, bits, static = parts[field, "ring"].tolist()
            met = read(tuple[str, ...], parse(parts[field, "met"].tobytes(), _MOST_HEADER_BYTES))
            ring = Modulus(degree, bits, bool(static))
            if parts[field, "s"].shape != (1, ring.degree):
                raise InputError(f"a secret of {ring.degree} coefficients expected")
            fields[field] = Secret.of(ring, parts[field, "s"], met, Randomness())
    hints = typing.get_type_hints(kinds[kind])
    for field, value in fields.items():
        if field not in hints or not _fits(hints[field], value):
            raise InputError(f"{shown(name)}: a {shown(kind)} has no such {shown(field)}")
    return kinds[kind](**fields)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a field may be left out, and is of bytes or not, as it is annotated."""
    either = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = set(typing.get_args(hint)) if either else {hint}
    if value is None:
        return type(None) in kinds
    return isinstance(value, bytes) == (bytes in kinds)
