"""State dicts of PyTorch are read without it; what else a pickle may hold is refused by name."""

import re
import zipfile

import numpy as np
import pytest
import torch_files as files
from torch_files import ARRAYS, Call, Global, Refer

from nets.public import read_state_dict
from nets.torch_file import read_torch
from pqjax.errors import CheckpointError

FLAT = np.arange(10, dtype=np.float32)


def both(arrays):
    tree, raw = files.state(arrays)
    return {
        "zip": files.zipped(tree, raw),
        "legacy": files.legacy(tree, raw, files.counted(arrays)),
    }


def read(tmp_path, raw):
    path = tmp_path / "net.pth"
    path.write_bytes(raw)
    return read_torch(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_tensors_of_all_types_and_strides_are_read(form, tmp_path):
    found = read(tmp_path, both(ARRAYS)[form])

    assert found.keys() == ARRAYS.keys()
    for name, wanted in ARRAYS.items():
        assert found[name].dtype == wanted.dtype
        np.testing.assert_array_equal(found[name], wanted)


def test_a_state_dict_within_a_checkpoint_is_found(tmp_path):
    tree, raw = files.state({"module.conv.weight": FLAT})
    whole = {"epoch": 3, "rate": 0.5, "optimizer": {0: [None, True]}, "state_dict": tree}

    found = read(tmp_path, files.zipped(whole, raw))

    np.testing.assert_array_equal(found["conv.weight"], FLAT)


def test_tensors_may_share_a_storage_and_be_parameters(tmp_path):
    held = files.storage("0", FLAT)
    part = Call("torch._utils._rebuild_parameter", (files.tensor(held, 4, (2,), (3,)), True, {}))
    tree = {"all": files.tensor(held, 0, (10,), (1,)), "some": part}

    found = read(tmp_path, files.zipped(tree, {"0": FLAT.tobytes()}))

    np.testing.assert_array_equal(found["some"], FLAT[[4, 7]])


def test_bfloat16_becomes_float32(tmp_path):
    wanted = np.array([1.0, -0.375, 3e38], np.float32).view(np.uint32) & 0xFFFF0000
    upper = (wanted >> 16).astype(np.uint16)
    held = files.storage("0", upper, kind="torch.BFloat16Storage")
    tree = {"x": files.tensor(held, 0, (3,), (1,))}

    found = read(tmp_path, files.zipped(tree, {"0": upper.tobytes()}))

    np.testing.assert_array_equal(found["x"], wanted.view(np.float32))


def test_pickles_of_protocol_4_are_understood(tmp_path):
    tree, raw = files.state({"x": FLAT})

    def renamed(found):
        words = [b"\x8c" + bytes([len(word)]) + word + b"\x94" for word in found.groups()]
        return b"".join(words) + b"\x93\x94"  # strings that are remembered, then a global of both

    newer = re.sub(rb"c([\w.]+)\n(\w+)\n", renamed, files.opcodes(tree))
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        frame = b"\x95" + len(newer).to_bytes(8, "little")
        archive.writestr("net/data.pkl", b"\x80\x04" + frame + newer + b".")
        archive.writestr("net/data/0", raw["0"])

    np.testing.assert_array_equal(read_torch(path)["x"], FLAT)


TENSOR = files.tensor(files.storage("0", FLAT), 0, (10,), (1,))
HOSTILE = {
    "a call of the system": ({"x": Call("os.system", ("true",))}, "os.system', which is no tensor"),
    "a call of builtins": ({"x": Call("builtins.eval", ("1",))}, "builtins.eval', which is no tensor"),
    "a numpy scalar": ({"x": Call("numpy.core.multiarray.scalar", ())}, "multiarray.scalar"),
    "a whole model": (Call("net.Net", ()), "net.Net', which is no tensor"),
    "a quantized tensor": ({"x": Call("torch._utils._rebuild_qtensor", ())}, "_rebuild_qtensor"),
    "a sparse tensor": ({"x": Call("torch._utils._rebuild_sparse_tensor", ())}, "_rebuild_sparse"),
    "an unknown storage": (
        {"x": files.tensor(files.storage("0", FLAT, kind="torch.ComplexFloatStorage"), 0, (1,), (1,))},
        "ComplexFloatStorage",
    ),
    "a view of a storage": (
        {"x": Refer((*files.storage("0", FLAT).what, ("1", 0, 3)))}, "view of another",
    ),
    "no storage": ({"x": Refer(("module", "a"))}, "a storage expected"),
    "a storage of minus one": (
        {"x": files.tensor(files.storage("0", FLAT, -1), 0, (1,), (1,))}, "count of elements",
    ),
    "a huge shape": (
        {"x": files.tensor(files.storage("0", FLAT), 0, (1 << 39, 1 << 39), (0, 0))}, "outside",
    ),
    "a shape beyond all counts": (
        {"x": files.tensor(files.storage("0", FLAT), 0, (1 << 80,), (0,))}, "whole strides",
    ),
    "a stride out of the storage": (
        {"x": files.tensor(files.storage("0", FLAT), 0, (4,), (4,))}, "outside its storage",
    ),
    "an offset out of the storage": (
        {"x": files.tensor(files.storage("0", FLAT), 10, (1,), (1,))}, "outside its storage",
    ),
    "a negative stride": (
        {"x": files.tensor(files.storage("0", FLAT), 9, (4,), (-1,))}, "whole strides",
    ),
    "axes that do not match": (
        {"x": files.tensor(files.storage("0", FLAT), 0, (4,), ())}, "whole strides",
    ),
    "a storage declared twice": (
        {"x": TENSOR, "y": files.tensor(files.storage("0", FLAT, 5), 0, (1,), (1,))}, "in two ways",
    ),
    "a storage larger than the file": (
        {"x": files.tensor(files.storage("0", FLAT, 1 << 39), 0, (1,), (1,))}, "cut short",
    ),
    "a storage that is missing": (
        {"x": files.tensor(files.storage("1", FLAT), 0, (1,), (1,))}, "not in the file",
    ),
    "no dictionary": ((TENSOR,), "tensors by name"),
    "an empty dictionary": ({}, "tensors by name"),
    "a number for a tensor": ({"x": 3}, "'x': a tensor expected, got int"),
    "a name that is a tuple": ({(1, 2): TENSOR}, "by names"),
    "a tensor of numbers": ({"x": files.tensor(3, 0, (1,), (1,))}, "of a storage"),
    "a parameter of numbers": (
        {"x": Call("torch._utils._rebuild_parameter", (3, True, {}))}, "parameter that is a tensor",
    ),
    "a call without arguments": ({"x": Call("torch._utils._rebuild_tensor_v2", ())}, "TypeError"),
    "a global and no call": ({"x": Global("os.system")}, "got Name"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_tensor_is_refused_by_name(case, tmp_path):
    tree, message = HOSTILE[case]
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, files.zipped(tree, {"0": FLAT.tobytes()}))


OPCODES = {
    "an unknown opcode": (b"\x80\x02\x93.", "IndexError"),
    "an opcode of objects": (b"\x80\x02cos\nsystem\n)\x81.", "NEWOBJ, which no state dict"),
    "an opcode of instances": (b"\x80\x02(ios\nsystem\n.", "INST, which no state dict"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1, which no state dict"),
    "bytes": (b"\x80\x02C\x01a.", "SHORT_BINBYTES, which no state dict"),
    "a memo's entry that is not there": (b"\x80\x02h\x05.", "KeyError"),
    "no end": (b"\x80\x02}", "ValueError"),
    "nothing": (b"", "ValueError"),
    "an empty stack": (b"\x80\x02.", "IndexError"),
    "a string longer than the file": (b"\x80\x02X\xff\xff\xff\x7fa.", "ValueError"),
    "a mark that is not there": (b"\x80\x02t.", "IndexError"),
    "entries of a tuple": (b"\x80\x02)NNs.", "no dictionary"),
    "elements of a tuple": (b"\x80\x02)Na.", "no list"),
    "one key without a value": (b"\x80\x02}(X\x01\x00\x00\x00au.", "ValueError"),
}


@pytest.mark.parametrize("case", OPCODES)
def test_pickles_that_state_dicts_are_not_are_refused(case, tmp_path):
    raw, message = OPCODES[case]
    file = tmp_path / "net.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", raw)

    with pytest.raises(CheckpointError, match=message):
        read_torch(file)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(form, tmp_path):
    raw = both({"x": FLAT, "y": FLAT[:3]})[form]
    for end in range(0, len(raw), 7):
        with pytest.raises(CheckpointError, match="net.pth"):
            read(tmp_path, raw[:end])


def test_zips_that_could_hide_something_are_refused(tmp_path):
    tree, raw = files.state({"x": FLAT})
    for bad in (
        files.zipped(tree, raw, order=b"big"),
        files.zipped(tree, raw, compression=zipfile.ZIP_DEFLATED),
    ):
        with pytest.raises(CheckpointError, match="expected"):
            read(tmp_path, bad)
    with zipfile.ZipFile(tmp_path / "two.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("b/data.pkl", b"")
    with pytest.raises(CheckpointError, match="one data.pkl in the zip expected, got 2"):
        read_torch(tmp_path / "two.pth")


def test_older_files_that_contradict_themselves_are_refused(tmp_path):
    tree, raw = files.state({"x": FLAT})
    counts = files.counted({"x": FLAT})
    big = files.legacy(tree, raw, counts).replace(
        files.opcodes("little_endian") + b"\x88", files.opcodes("little_endian") + b"\x89"
    )
    cases = {
        "little-endian": big,
        "in two ways": files.legacy(tree, raw, {"0": 1 << 60}),
        "list of all storages": files.legacy(tree, {**raw, "1": b""}, {**counts, "1": 0}),
        "does not begin": b"\x80\x02K\x01." + files.legacy(tree, raw, counts),
    }
    for message, file in cases.items():
        with pytest.raises(CheckpointError, match=message):
            read(tmp_path, file)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".th"])
def test_state_dicts_by_any_usual_suffix(suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(both({"x": FLAT})["zip"])

    np.testing.assert_array_equal(read_state_dict(path)["x"], FLAT)
