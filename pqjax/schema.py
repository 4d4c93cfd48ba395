"""What a dataclass's annotations say about its fields, enforced: exact types, and bounds on everything.

    bits: Annotated[int, Between(1, 64)]

`check` holds a Python value to an annotation; `read` makes one of a JSON tree, held to the same. A JSON
object has a dataclass's fields and no others, all but those with a default (added after files were
written); a list is a tuple; an integer is no bool, no float and no text. Both say where the first misfit
lies. A new field needs no second table.
"""

import collections.abc
import dataclasses
import functools
import itertools
import math
import types
import typing
from collections.abc import Callable, Iterable

from pqjax.errors import InputError, shown

_Read = Callable[[typing.Any], typing.Any]


@dataclasses.dataclass(frozen=True)
class Between:
    """Bounds of an integer, both included."""

    low: int
    high: int

    def wanted(self, value: int) -> str | None:
        """What was expected, if the value is something else."""
        return None if self.low <= value <= self.high else f"in {self.low}..{self.high}"


@dataclasses.dataclass(frozen=True)
class Length:
    """Bounds of the length of a text, tuple or mapping, both included."""

    least: int
    most: int

    def wanted(self, value: typing.Sized) -> str | None:
        """What was expected, if the value is something else."""
        fits = self.least <= len(value) <= self.most
        return None if fits else f"of length {self.least}..{self.most}"


@dataclasses.dataclass(frozen=True)
class Product:
    """The most that a tuple's integers may multiply to."""

    most: int

    def wanted(self, value: tuple[int, ...]) -> str | None:
        """What was expected, if the value is something else."""
        return None if math.prod(value) <= self.most else f"of product at most {self.most}"


@dataclasses.dataclass(frozen=True)
class Printable:
    """Text that cannot steer a terminal: no control, format or surrogate characters."""

    def wanted(self, value: str) -> str | None:
        """What was expected, if the value is something else."""
        return None if value.isprintable() else "of printable characters"


class _Misfit(Exception):
    """A value that an annotation does not allow; the path to it grows on the way up."""

    def __init__(self, wanted: str, value: object, inside: bool = False) -> None:
        self.wanted, self.value, self.path, self.inside = wanted, value, "", inside

    def __str__(self) -> str:
        return f"{self.path.lstrip('.')} {self.wanted} expected, got {shown(self.value)}".lstrip()


def check(hint: typing.Any, value: object) -> None:
    """Holds a value to an annotation.

    Raises:
      InputError: says where, what was expected and what came.
    """
    _checked(hint, value, json=False)


def read(hint: typing.Any, tree: object) -> typing.Any:
    """Makes what an annotation describes of a JSON tree.

    Raises:
      InputError: says where, what was expected and what came.
    """
    return _checked(hint, tree, json=True)


def _checked(hint: typing.Any, value: object, json: bool) -> typing.Any:
    try:
        return _reader(hint, json)(value)
    except _Misfit as misfit:
        raise InputError(str(misfit)) from None


def _inside(read: _Read, value: object, step: str) -> typing.Any:
    """Reads a part of a value; a misfit in it lies a step further away."""
    try:
        return read(value)
    except _Misfit as misfit:
        misfit.path = f"{step}{misfit.path}"
        raise


@functools.cache
def _reader(hint: typing.Any, json: bool) -> _Read:
    """How a value of an annotation is read, of JSON or as it is; made once for each annotation."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _bounded(_reader(args[0], json), args[1:])
    if origin is typing.Literal:
        return _literal(args)
    if origin in (typing.Union, types.UnionType):
        return _either(tuple(_reader(arg, json) for arg in args))
    if origin is tuple:
        kind = list if json else tuple
        if args[1:] == (...,):
            return _tuple(itertools.repeat(_reader(args[0], json)), None, kind)
        return _tuple([_reader(arg, json) for arg in args], len(args), kind)
    if origin is collections.abc.Mapping:
        return _mapping(_reader(args[0], json), _reader(args[1], json))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint, include_extras=True)
        fields = {f.name: _reader(hints[f.name], json) for f in dataclasses.fields(hint)}
        if not json:
            return _instance(hint, fields)
        needed = {f.name for f in dataclasses.fields(hint) if f.default is dataclasses.MISSING}
        return _object(hint, fields, needed)
    if hint is object:
        return lambda value: value
    return _exact(type(None) if hint is None else hint)


_KINDS = {int: "an integer", str: "a text", bool: "true or false", float: "a number"}


def _exact(kind: typing.Any) -> _Read:
    wanted = "null" if kind is type(None) else _KINDS.get(kind, str(kind))

    def read(value):
        if type(value) is not kind:
            raise _Misfit(wanted, value)
        return value

    return read


def _bounded(inner: _Read, bounds: tuple) -> _Read:
    def read(value):
        found = inner(value)
        for bound in bounds:
            wanted = bound.wanted(found)
            if wanted is not None:
                raise _Misfit(wanted, value)
        return found

    return read


def _literal(choices: tuple) -> _Read:
    def read(value):
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise _Misfit(" or ".join(str(choice) for choice in choices), value)

    return read


def _either(readers: tuple[_Read, ...]) -> _Read:
    def read(value):
        wanted, inside = [], []
        for each in readers:
            try:
                return each(value)
            except _Misfit as misfit:
                if misfit.inside or misfit.path:  # the right kind, with something amiss inside
                    inside.append(misfit)
                wanted.append(misfit.wanted)
        if inside:  # of several kinds the one whose fields were found
            raise max(inside, key=lambda misfit: bool(misfit.path))
        raise _Misfit(" or ".join(wanted), value)

    return read


def _tuple(items: Iterable[_Read], count: int | None, kind: type) -> _Read:
    """Of such items in their order, as many as there are or exactly `count`."""

    def read(value):
        if type(value) is not kind:
            raise _Misfit(f"a {kind.__name__}", value)
        if count is not None and count != len(value):
            raise _Misfit(f"{count} entries", value)
        parts = enumerate(zip(items, value))  # noqa: B905 (readers of the same may be endless)
        return tuple(_inside(each, entry, f"[{index}]") for index, (each, entry) in parts)

    return read


def _mapping(key: _Read, item: _Read) -> _Read:
    def read(value):
        if type(value) is not dict:
            raise _Misfit("an object", value)
        found = {}
        for name, entry in value.items():
            step = f"[{shown(name)}]"
            found[_inside(key, name, step)] = _inside(item, entry, step)
        return found

    return read


def _object(kind: type, fields: dict[str, _Read], needed: set[str]) -> _Read:
    """A dataclass of a JSON object with its fields."""

    def read(value):
        if type(value) is not dict:
            raise _Misfit(f"an object ({kind.__name__})", value)
        if not needed <= value.keys():
            missing = next(name for name in fields if name in needed - value.keys())
            raise _Misfit(f"a field {missing!r}", list(value), inside=True)
        if not value.keys() <= fields.keys():
            extra = next(name for name in value if name not in fields)
            raise _Misfit(f"no field but {', '.join(fields)}", extra, inside=True)
        found = {name: _inside(fields[name], entry, f".{name}") for name, entry in value.items()}
        return kind(**found)

    return read


def _instance(kind: type, fields: dict[str, _Read]) -> _Read:
    """A dataclass as it is, every field held to its annotation."""

    def read(value):
        if type(value) is not kind:
            raise _Misfit(f"a {kind.__name__}", value)
        for name, each in fields.items():
            _inside(each, getattr(value, name), f".{name}")
        return value

    return read
