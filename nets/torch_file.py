"""Tensors of a PyTorch file, without PyTorch: both formats of `torch.save`, and nothing that is run.

A pickle is a program for a stack machine that calls whatever it names. Here the opcodes of state dicts
alone are carried out, names are only words, and of these `_CALLS` are understood; another one is refused
by its name. The zip format (PyTorch 1.6 and later) has the pickle in `data.pkl` and every storage in a
file beside it; in the older one pickles and storages follow each other (torch/serialization.py).
"""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
import pickletools
import struct
import typing
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from pqjax.errors import CheckpointError, shown

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_BFLOAT16 = np.dtype([("upper", "<u2")])  # the upper half of a float32
_DTYPES = {
    "DoubleStorage": np.dtype("<f8"), "FloatStorage": np.dtype("<f4"), "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": _BFLOAT16, "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"), "CharStorage": np.dtype("i1"), "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}  # fmt: skip
_STATES = ("state_dict", "model_state_dict", "model")  # where training scripts put the tensors


class Name(str):
    """What a pickle calls by its name: a word here, never looked up."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where a tensor's elements are.

    Attributes:
      key: of the storage in its file.
      dtype: of its elements.
      count: of them.
    """

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor as a pickle has it: a part of a storage. Its extent is checked."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.stride)
        whole = all(type(n) is int and 0 <= n < 1 << 40 for n in numbers)
        if not whole or len(self.shape) != len(self.stride) or len(self.shape) > 8:
            raise CheckpointError("a tensor of at most 8 axes with whole strides expected")
        reach = sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        count = math.prod(self.shape)
        if count and self.offset + reach >= self.storage.count or count > self.storage.count:
            raise CheckpointError(
                f"a tensor of shape {self.shape} and strides {self.stride} at {self.offset} lies "
                f"outside its storage of {self.storage.count} elements"
            )

    def array(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        """Its elements; bfloat16 becomes float32."""
        flat = storages[self.storage.key]
        steps = [s * flat.itemsize for s in self.stride]
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, steps, writeable=False
        )
        if flat.dtype == _BFLOAT16:
            return (view["upper"].astype(np.uint32) << 16).view(np.float32)
        return view


def _tensor(storage: typing.Any, offset: int, shape: tuple, stride: tuple, *_: object) -> Tensor:
    if not isinstance(storage, Storage) or type(shape) is not tuple or type(stride) is not tuple:
        raise CheckpointError("a tensor of a storage, shape and strides expected")
    return Tensor(storage, offset, shape, stride)


def _parameter(tensor: typing.Any, *_: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise CheckpointError("a parameter that is a tensor expected")
    return tensor


_CALLS: dict[str, Callable[..., typing.Any]] = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}


def _storage(given: typing.Any) -> Storage:
    """Of a pickle's persistent id: ("storage", type, key, device, elements[, view])."""
    if type(given) is not tuple or len(given) not in (5, 6) or given[0] != "storage":
        raise CheckpointError("a storage expected where the pickle refers outside itself")
    kind, key, count = given[1], given[2], given[4]
    dtype = _DTYPES.get(kind.removeprefix("torch.")) if isinstance(kind, Name) else None
    if dtype is None:
        raise CheckpointError(f"storages of these types expected: {', '.join(_DTYPES)}; got {kind}")
    if type(key) is not str or type(count) is not int or not 0 <= count < 1 << 40:
        raise CheckpointError("a storage with a key and a count of elements expected")
    if given[5:] not in ((), (None,)):
        raise CheckpointError("a storage that is a view of another is not read")
    return Storage(key, dtype, count)


class _Machine:
    """The stack, its marks and its memo, while one pickle is carried out."""

    def __init__(self) -> None:
        self.stack: list[typing.Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, typing.Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, file: typing.BinaryIO) -> typing.Any:
        """What the pickle at the file's place makes."""
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _LITERALS:
                self.stack.append(argument)
            elif name in _RULES:
                _RULES[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise CheckpointError(f"it does {name}, which no state dict does")
        return self.stack.pop()

    def popped(self) -> list[typing.Any]:
        """What lies above the last mark."""
        at = self.marks.pop()
        self.stack, top = self.stack[:at], self.stack[at:]
        return top

    def tuple(self, count: int | None) -> None:
        """Of the topmost values, or of those above the mark."""
        if count is None:
            top = self.popped()
        else:
            top = [self.stack.pop() for _ in range(count)][::-1]
        self.stack.append(tuple(top))

    def named(self, name: str) -> None:
        """A word for a global."""
        self.stack.append(Name(name))

    def stack_named(self) -> None:
        """The same, of two strings."""
        name, module = self.stack.pop(), self.stack.pop()
        self.named(f"{module}.{name}")

    def call(self) -> None:
        """Of the few names that are understood."""
        given, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, Name) or name not in _CALLS or type(given) is not tuple:
            raise CheckpointError(f"it holds {shown(str(name))}, which is no tensor")
        self.stack.append(_CALLS[name](*given))

    def set_items(self, pairs: list[typing.Any]) -> None:
        """Into the dictionary on top."""
        if type(self.stack[-1]) is not dict:
            raise CheckpointError("entries of something that is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) not in (str, int):  # others' hashes may take forever
                raise CheckpointError("dictionaries by names expected")
            self.stack[-1][key] = value

    def append(self, values: list[typing.Any]) -> None:
        """To the list on top."""
        if type(self.stack[-1]) is not list:
            raise CheckpointError("elements of something that is no list")
        self.stack[-1].extend(values)

    def refer(self) -> None:
        """To a storage, which is declared alike wherever it is."""
        given = _storage(self.stack.pop())
        if self.storages.setdefault(given.key, given) != given:
            raise CheckpointError(f"storage {shown(given.key)} is declared in two ways")
        self.stack.append(given)

    def remember(self, at: int) -> None:
        """The topmost value, for `recall`."""
        self.memo[at] = self.stack[-1]


_CONSTANTS: dict[str, Callable[[], typing.Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
}  # fmt: skip
_RULES: dict[str, Callable[[_Machine, typing.Any], typing.Any]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.tuple(None),
    "TUPLE1": lambda m, _: m.tuple(1),
    "TUPLE2": lambda m, _: m.tuple(2),
    "TUPLE3": lambda m, _: m.tuple(3),
    "GLOBAL": lambda m, name: m.named(name.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda m, _: m.stack_named(),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.stack.pop(),  # an OrderedDict's attributes: versions of modules
    "BINPERSID": lambda m, _: m.refer(),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.popped()),
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.popped()),
    "BINPUT": lambda m, at: m.remember(at),
    "LONG_BINPUT": lambda m, at: m.remember(at),
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "BINGET": lambda m, at: m.stack.append(m.memo[at]),
    "LONG_BINGET": lambda m, at: m.stack.append(m.memo[at]),
}


def read_torch(path: pathlib.Path | str) -> dict[str, np.ndarray]:
    """Tensors by name from what `torch.save` wrote of a state dict; bfloat16 as float32.

    A dictionary that holds one under a usual name is looked into, and "module." before names dropped.

    Raises:
      FileNotFoundError: there is no such file.
      CheckpointError: the file is cut short, or holds what is no tensor; names it.
    """
    raw = pathlib.Path(path).read_bytes()
    try:
        tree, storages = _zipped(raw) if raw.startswith(b"PK\3\4") else _legacy(raw)
        return {
            name.removeprefix("module."): tensor.array(storages)
            for name, tensor in _tensors(tree).items()
        }
    except CheckpointError as error:
        raise CheckpointError(f"{path} is not a readable state dict: {error}") from error
    except Exception as error:  # whatever a broken pickle or zip makes of lists, structs and names
        why = shown(f"{type(error).__name__}: {error}")
        raise CheckpointError(f"{path} is not a readable state dict: {why}") from error


def _tensors(tree: typing.Any) -> dict[str, Tensor]:
    for name in _STATES:
        if isinstance(tree, dict) and isinstance(tree.get(name), dict):
            tree = tree[name]
    if not isinstance(tree, dict) or not tree:
        raise CheckpointError("tensors by name expected: save model.state_dict()")
    for name, value in tree.items():
        if not isinstance(value, Tensor) or type(name) is not str:
            raise CheckpointError(
                f"{shown(name)}: a tensor expected, got {type(value).__name__}: save "
                "model.state_dict()"
            )
    return tree


def _zipped(raw: bytes) -> tuple[typing.Any, dict[str, np.ndarray]]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos.values())
        if not stored or sum(info.file_size for info in infos.values()) > len(raw):
            raise CheckpointError("files that are stored, and take no more than there is, expected")
        pickles = [name for name in infos if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise CheckpointError(f"one data.pkl in the zip expected, got {len(pickles)}")
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in infos and archive.read(order) != b"little":
            raise CheckpointError("little-endian storages expected")
        machine = _Machine()
        tree = machine.run(io.BytesIO(archive.read(pickles[0])))
        missing = [key for key in machine.storages if f"{root}data/{key}" not in infos]
        if missing:
            raise CheckpointError(f"storage {shown(missing[0])} is not in the file")
        storages = {
            key: _elements(archive.read(f"{root}data/{key}"), storage)
            for key, storage in machine.storages.items()
        }
    return tree, storages


def _legacy(raw: bytes) -> tuple[typing.Any, dict[str, np.ndarray]]:
    file = io.BytesIO(raw)
    if (
        raw[:2] != b"\x80\x02"
        or _Machine().run(file) != _MAGIC
        or _Machine().run(file) != _PROTOCOL
    ):
        raise CheckpointError("it does not begin as a file of torch.save does")
    system = _Machine().run(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("little-endian storages expected")
    machine = _Machine()
    tree, keys = machine.run(file), _Machine().run(file)
    if not isinstance(keys, list) or sorted(keys) != sorted(machine.storages):
        raise CheckpointError("a list of all storages expected behind the pickle")
    storages = {}
    for key in keys:
        storage = machine.storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise CheckpointError(f"storage {shown(key)} is declared in two ways")
        storages[key] = _elements(file.read(count * storage.dtype.itemsize), storage)
    return tree, storages


def _elements(raw: bytes, storage: Storage) -> np.ndarray:
    nbytes = storage.count * storage.dtype.itemsize
    if len(raw) != nbytes:
        raise CheckpointError(
            f"storage {shown(storage.key)}: {nbytes} bytes expected, got {len(raw)}: the file is cut "
            "short"
        )
    return np.frombuffer(raw, storage.dtype)
