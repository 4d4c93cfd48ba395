"""Files as `torch.save` writes them, written by hand: torch is not installed here."""

import io
import pickle
import struct
import typing
import zipfile

import numpy as np

STORAGES = {
    "f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char",
    "u1": "Byte", "b1": "Bool",
}  # fmt: skip


class Call(typing.NamedTuple):
    """A global that a pickle calls."""

    name: str
    arguments: tuple


class Global(typing.NamedTuple):
    """A global."""

    name: str


class Refer(typing.NamedTuple):
    """What a pickle refers to outside itself."""

    what: tuple


def _named(name):
    return (
        b"c" + name.rpartition(".")[0].encode() + b"\n" + name.rpartition(".")[2].encode() + b"\n"
    )


def opcodes(value):
    """A value's opcodes in protocol 2, without a memo."""
    if isinstance(value, Call):
        return _named(value.name) + opcodes(value.arguments) + b"R"
    if isinstance(value, Global):
        return _named(value.name)
    if isinstance(value, Refer):
        return opcodes(value.what) + b"Q"
    if isinstance(value, dict):
        pairs = b"".join(opcodes(part) for pair in value.items() for part in pair)
        empty = opcodes(Call("collections.OrderedDict", ())) if value else b"}"
        return empty + b"(" + pairs + b"u"
    if isinstance(value, (tuple, list)):
        parts = b"".join(map(opcodes, value))
        return b"(" + parts + b"t" if isinstance(value, tuple) else b"](" + parts + b"e"
    return pickle.dumps(value, 2)[2:-1].split(b"q\x00")[0]  # a string's memo left out


def pickled(value):
    return b"\x80\x02" + opcodes(value) + b"."


def storage(key, array, count=None, kind=None):
    name = kind or f"torch.{STORAGES[array.dtype.str[1:]]}Storage"
    return Refer(("storage", Global(name), key, "cpu", array.size if count is None else count))


def tensor(held, offset, shape, stride):
    arguments = (held, offset, shape, stride, False, Call("collections.OrderedDict", ()))
    return Call("torch._utils._rebuild_tensor_v2", arguments)


def state(arrays):
    """A state dict's tree, a storage for every array, and these storages' bytes by key."""
    tree, raw = {}, {}
    for at, (name, array) in enumerate(arrays.items()):
        key = str(at)
        stride = tuple(step // array.itemsize for step in array.strides)
        tree[name] = tensor(storage(key, array), 0, array.shape, stride)
        raw[key] = array.tobytes(order="A")
    return tree, raw


def zipped(tree, raw, order=b"little", compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("net/data.pkl", pickled(tree))
        archive.writestr("net/byteorder", order)
        for key, data in raw.items():
            archive.writestr(f"net/data/{key}", data)
        archive.writestr("net/version", "3\n")
    return file.getvalue()


def legacy(tree, raw, counts):
    """The older format; `counts` are the elements of every storage, by key."""
    system = {"protocol_version": 1001, "little_endian": True}
    parts = [0x1950A86A20F9469CFC6C, 1001, system, tree, list(raw)]
    return b"".join(map(pickled, parts)) + b"".join(
        struct.pack("<q", counts[key]) + data for key, data in raw.items()
    )


def counted(arrays):
    return {str(at): array.size for at, array in enumerate(arrays.values())}


ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "conv.turned": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "half": np.array([0.5, -2], np.float16),
    "count": np.array(7, np.int64),
    "mask": np.array([True, False]),
    "bytes": np.array([1, 255], np.uint8),
}
