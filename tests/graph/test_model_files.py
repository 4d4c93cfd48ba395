"""Model files from a stranger: nothing in them is believed before it is bounded."""

import dataclasses
import json
import pathlib
import resource
import struct
import zipfile

import pytest
from hostile import canonical, declare, members, npy, refused_file, sealed, zipped
from networks import random_network

from pqjax.errors import InputError
from pqjax.graph import TensorType, load_model, save_model

MODELS = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"


def test_a_kilobyte_that_declares_gigabytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "net.npz"
    graph, weights, _ = random_network(0)
    save_model(path, graph, weights)
    found = members(path)
    first = next(name for name in found if name.startswith("w:"))
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (8589934592,), }"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for name in (first, "graph.npy", "meta.npy", "format.npy", "sha256.npy"):
        zipped(path, {**found, name: npy(b"", header)})
        assert refused_file(path)
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            for nbytes in (2**32 - 2, 2**31, 10**8):
                zipped(path, found, compression)
                declare(path, name, nbytes)
                assert "cannot hold" in str(refused_file(path)) or nbytes == 10**8
    zipped(path, {**found, first: npy(bytes(1 << 24))}, zipfile.ZIP_DEFLATED)
    assert "cannot hold" in str(refused_file(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10


def a_file(tmp_path, change):
    """A model file with its members changed, and the checksum that goes with them."""
    path = tmp_path / "net.npz"
    graph, weights, _ = random_network(2)
    save_model(path, graph, weights, {"seed": 2})
    found = members(path)
    zipped(path, sealed(change(found)))
    return path


def regraphed(found, **fields):
    """Members with other fields in the graph's first linear layer."""
    tree = json.loads(found["graph.npy"][128:])
    next(node for node in tree["nodes"] if node["kind"] == "Conv").update(fields)
    return {**found, "graph.npy": npy(canonical(tree))}


def without(found, start):
    gone = next(name for name in found if name.startswith(start))
    return {name: raw for name, raw in found.items() if name != gone}


def described(text, header=None):
    """Members with another description."""
    return lambda found: {**found, "meta.npy": npy(text, header)}


DEEP = b"[" * 100_000 + b"]" * 100_000
SCALAR = dataclasses.asdict(TensorType((), 20, 1))
HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }"
FILES = [
    (lambda f: f, None),
    (lambda f: regraphed(f, groups=0), "groups in 1.."),
    (lambda f: regraphed(f, out=SCALAR), "out.shape of length"),
    (lambda f: regraphed(f, weight_bits=3.5), "weight_bits an integer"),
    (lambda f: {**f, "graph.npy": npy(DEEP)}, "nested at most 32"),
    (described(DEEP), "nested at most 32"),
    (described(b"[]"), "a description by name"),
    (described(b'{"a":1,"a":2}'), "every key once"),
    (described(b'"' + b"a" * (1 << 20) + b'"'), "at most 1048576 bytes"),
    (described(b"{}", HEADER), "3 elements"),
    (described(b"{}", HEADER.replace("|u1", "|O")), "a flat array"),
    (described(b"{}", HEADER.replace("(3,)", "(1, 2)")), "a flat array"),
    (described(b"{}", HEADER.replace("(3,), }", "(" * 60)), "a flat array"),
    (lambda f: without(f, "w:"), "missing w:"),
    (lambda f: {**f, "w:more.npy": npy(b"a")}, "not in it 'w:more'"),
    (lambda f: {**f, "w:\x1b[2J.npy": npy(b"a")}, "not in it"),
    (lambda f: {**f, "format.npy": npy(struct.pack("<q", 2))}, "format 1 expected, got 2"),
    (lambda f: {**f, "format.npy": npy(b"12")}, "8 bytes expected"),
]


@pytest.mark.parametrize("case", FILES, ids=[str(case[1]) for case in FILES])
def test_a_file_that_is_wrong_inside_is_one_checkpoint_error_that_says_what(case, tmp_path):
    change, message = case

    error = refused_file(a_file(tmp_path, change))

    assert (error is None) if message is None else (message in str(error)), error


def test_weights_of_another_size_or_type_are_refused_before_they_are_unpacked(tmp_path):
    for cut, more in ((0, b""), (None, b"a"), (0, bytes(5000))):

        def change(found, cut=cut, more=more):
            name = next(name for name in found if name.startswith("w:"))
            return {**found, name: npy(found[name][128:][:cut] + more)}

        assert "bytes expected, got" in str(refused_file(a_file(tmp_path, change)))


@pytest.mark.parametrize("path", sorted(MODELS.glob("resnet32_w*.npz")), ids=lambda path: path.name)
def test_a_graph_is_written_as_it_was_before_its_nodes_had_more_fields(path):
    """What nobody uses is not written, so digests stay: these files are older than `dilation`."""
    found = members(path)["graph.npy"][128:]

    assert b"dilation" not in found
    assert load_model(path)[0].to_json().encode() == found


def test_two_members_of_one_name_and_members_that_share_their_bytes_are_refused(tmp_path):
    path = a_file(tmp_path, lambda found: found)
    found = members(path)

    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped(path, [*found.items(), ("graph.npy", found["graph.npy"])])
    assert "different names expected, got 'graph.npy'" in str(refused_file(path))

    zipped(path, found)
    raw = path.read_bytes()
    start = raw.index(b"PK\1\2")
    entries, end = raw[start:-22], bytearray(raw[-22:])
    renamed = entries.replace(
        b"w:", b"v:"
    )  # every weight twice, by another name, of the same bytes
    both = entries + renamed
    end[8:16] = struct.pack("<HHL", 2 * len(found), 2 * len(found), len(both))
    path.write_bytes(raw[:start] + both + bytes(end))
    assert refused_file(path)


def test_a_zip_with_a_comment_or_of_64_bits_is_refused(tmp_path):
    path = a_file(tmp_path, lambda found: found)
    raw = path.read_bytes()

    path.write_bytes(raw[:-2] + struct.pack("<H", 3) + b"abc")
    assert "does not end like a zip" in str(refused_file(path))
    path.write_bytes(raw[:-22] + b"PK\6\7" + bytes(16) + raw[-22:])
    assert "does not end like a zip" in str(refused_file(path))
    path.write_bytes(raw[:-10] + struct.pack("<L", 1 << 30) + raw[-6:])
    assert "a directory of at most" in str(refused_file(path))


def test_deflated_files_are_read_too(tmp_path):
    path = a_file(tmp_path, lambda found: found)
    graph, weights, meta = load_model(path)

    zipped(path, members(path), zipfile.ZIP_DEFLATED)

    again = load_model(path)
    assert again[0] == graph and again[2] == meta
    assert all((again[1][name] == weights[name]).all() for name in weights)


def test_only_what_can_be_read_again_is_saved(tmp_path):
    graph, weights, _ = random_network(1)
    deep = []
    for _ in range(40):
        deep = [deep]

    for meta in (
        {"a": float("nan")},
        {"a": deep},
        {"a": {1}},
        {"a": "b" * (1 << 20)},
        {"a": 10**100},
    ):
        with pytest.raises(InputError):
            save_model(tmp_path / "net.npz", graph, weights, meta)
    assert not list(tmp_path.iterdir())
