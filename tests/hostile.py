"""What an attacker would send: real documents and model files, mutated, and some made with care."""

import copy
import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np

from pqjax.errors import CheckpointError, PlanError, PqjaxError
from pqjax.graph import load_model
from pqjax.planner import read_plan

# What may stand behind a `CheckpointError`; anything else was not foreseen.
EXPECTED = (PqjaxError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
NASTY = [
    0, -1, 1, 2, 3, 63, 64, 65, 257, 4096, 10**9, 2**31, 2**53 + 1, 2**60, 2**63, -(2**63) - 1, 2**64,
    10**30, 1.5, 2.0, -0.0, 1e308, math.inf, -math.inf, math.nan, True, False, None, "", "x", "Conv",
    "image", "1", "\x1b[2J", "a\nb", "\u202e", "\ud800", "a" * 300, [], [1], [[]], [1, 1],
    [2**20, 2**20, 2**20], {}, {"a": 1}, {"kind": "Relu"},
]  # fmt: skip


def refused(document, deadline_s: float | None = 20.0):
    """The error of a document that is no plan, foreseen and fit for a terminal; None if it is one."""
    try:
        read_plan(document, deadline_s)
    except PlanError as error:
        assert error.__cause__ is None or isinstance(error.__cause__, PqjaxError), document
        assert str(error).isprintable() and len(str(error)) < 1000, document
        return error
    return None


def refused_file(path):
    try:
        load_model(path)
    except CheckpointError as error:
        assert error.__cause__ is None or isinstance(error.__cause__, EXPECTED), repr(
            error.__cause__
        )
        assert str(error).isprintable() and len(str(error)) < 1000
        return error
    return None


def canonical(tree):
    return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()


def places(tree, path=()) -> Iterator[tuple]:
    """The path of every value in a tree, its own included."""
    yield path
    if isinstance(tree, (dict, list)):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from places(tree[key], (*path, key))


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def put(tree, path, value):
    """The tree with another value at a path."""
    if not path:
        return value
    made = copy.copy(tree)
    made[path[0]] = put(tree[path[0]], path[1:], value)
    return made


def mutated(rng, tree):
    """One structural change somewhere in a JSON tree."""
    every = list(places(tree))
    path = every[int(rng.integers(1, len(every)))]
    parent, here = at(tree, path[:-1]), at(tree, path)
    kind = int(rng.integers(9))
    if kind <= 2:
        return put(tree, path, NASTY[int(rng.integers(len(NASTY)))])
    if kind == 3 and isinstance(here, int):
        return put(tree, path, here + int(rng.choice([-1, 1, 2, 8, 1000])))
    if kind == 4:
        return put(tree, path, [here])
    if kind == 5:
        other = every[int(rng.integers(1, len(every)))]
        return put(tree, path, copy.deepcopy(at(tree, other)))
    if isinstance(parent, list):
        entries = list(parent)
        if kind == 6:
            del entries[path[-1]]
        elif kind == 7:
            entries.insert(path[-1], copy.deepcopy(here))
        else:
            swap = int(rng.integers(len(entries)))
            entries[path[-1]], entries[swap] = entries[swap], here
        return put(tree, path[:-1], entries)
    fields = dict(parent)
    del fields[path[-1]]
    if kind == 7:
        fields[f"{path[-1]}s"] = here
    elif kind == 8:
        fields[str(rng.choice(list(parent)))] = here
    return put(tree, path[:-1], fields)


def damaged(rng, raw):
    """One change of bytes: flipped, cut out, doubled, put in, or the end missing."""
    i, j = sorted(int(k) for k in rng.integers(0, len(raw), 2))
    j = min(j, i + int(rng.integers(1, 40)))
    return [
        raw[:i] + bytes([raw[i] ^ 1 << int(rng.integers(8))]) + raw[i + 1 :],
        raw[:i] + raw[j:],
        raw[:j] + raw[i:],
        raw[:i] + rng.bytes(3) + raw[i:],
        raw[:i],
    ][int(rng.integers(5))]


def mutated_document(rng, documents):
    document = documents[int(rng.integers(len(documents)))]
    if rng.random() < 0.15:
        return damaged(rng, document)
    tree = json.loads(document)
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        tree = mutated(rng, tree)
    return canonical(tree)


def npy(data, header=None):
    """An array of bytes as `np.save` writes it, or with another header."""
    file = io.BytesIO()
    np.save(file, np.frombuffer(data, np.uint8))
    whole = file.getvalue()
    if header is None:
        return whole
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def members(path):
    """A model file's members, in order."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def sealed(found):
    """Members with the checksum that they should have."""
    digest = hashlib.sha256()
    for name in sorted(name.removesuffix(".npy") for name in found):
        if name not in ("format", "sha256"):
            raw = found[f"{name}.npy"]
            start = 10 + struct.unpack("<H", raw[8:10])[0] if len(raw) > 10 else 0
            digest.update(name.encode() + b"\0" + raw[start:])
    return {**found, "sha256.npy": npy(digest.digest())}


def zipped(path, found, compression=zipfile.ZIP_STORED):
    """Writes members, given as a mapping or as pairs."""
    pairs = found.items() if isinstance(found, dict) else found
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, raw in pairs:
            archive.writestr(name, raw)


def declare(path, name, nbytes):
    """Makes a zip's directory say that a member has so many bytes."""
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\1\2", 0, raw.rindex(name.encode()))
    raw[entry + 24 : entry + 28] = struct.pack("<L", nbytes)
    path.write_bytes(bytes(raw))


def mutate_file(rng, path, files):
    """Writes a mutated model file."""
    whole, found = files[int(rng.integers(len(files)))]
    kind = int(rng.integers(8))
    name = str(rng.choice(list(found)))
    if kind <= 1:
        path.write_bytes(damaged(rng, whole))
    elif kind <= 4:  # a graph or description that is wrong inside, and a checksum that is right
        part = "graph.npy" if rng.random() < 0.9 else "meta.npy"
        tree = json.loads(found[part][128:])
        text = canonical(mutated(rng, tree) if len(list(places(tree))) > 1 else [tree])
        zipped(path, sealed({**found, part: npy(text)}))
    elif kind == 5:
        zipped(path, sealed({**found, name: damaged(rng, found[name])}))
    elif kind == 6:
        pairs = list(found.items())
        i = int(rng.integers(len(pairs)))
        zipped(
            path,
            pairs[:i] + pairs[i + 1 :],
            int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])),
        )
    else:
        zipped(path, found, zipfile.ZIP_DEFLATED)
        declare(path, name, int(rng.choice([0, 1, 100, 2**20, 2**31, 2**32 - 2])))
