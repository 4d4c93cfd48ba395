"""Mutated plan documents and model files: read or refused, soon, in one kind of error."""

import dataclasses
import json
import pathlib
import resource
import time

import numpy as np
import pytest
from hostile import NASTY, canonical, members, mutate_file, mutated_document, refused, refused_file
from networks import random_network

from pqjax.graph import Graph, Input, Relu, TensorType, load_model, save_model
from pqjax.ot import SOURCES
from pqjax.ot.tuning import Tuning
from pqjax.planner import PRESETS, plan
from pqjax.wire.handshake import DOCUMENT_LIMIT_BYTES
from pqjax.wire.link import Link

PROTOCOLS = list(PRESETS)
DOCUMENTS = [
    plan(random_network(seed)[0], protocol, Link(200, 13) if seed % 2 else None).document
    for seed, protocol in enumerate(PROTOCOLS)
]
MODELS = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"


def models(folder):
    """Small model files: their bytes, and their members."""
    found = []
    for seed in range(4):
        graph, weights, _ = random_network(seed)
        path = folder / f"{seed}.npz"
        save_model(path, graph, weights, {"seed": seed, "classes": ["a", "b"], "rate": 0.5})
        found.append((path.read_bytes(), members(path)))
    return found


def test_mutated_plan_documents_are_read_or_refused_in_one_kind_of_error():
    rng = np.random.default_rng(1)

    kinds = [refused(mutated_document(rng, DOCUMENTS)) is None for _ in range(300)]

    assert 0 < sum(kinds) < 100  # some mutations change nothing, most are noticed


def test_every_nasty_value_in_every_field_of_a_plan_is_refused_or_read():
    tree = json.loads(DOCUMENTS[1])
    for field in tree:
        for value in NASTY:
            refused(canonical({**tree, field: value}))


def test_mutated_model_files_are_read_or_refused_in_one_kind_of_error(tmp_path):
    rng, files = np.random.default_rng(2), models(tmp_path)
    path = tmp_path / "mutated.npz"
    read = 0
    for _ in range(150):
        mutate_file(rng, path, files)
        read += refused_file(path) is None

    assert 0 < read < 100


def slowest(cases):
    """Runs cases; the longest time of one in seconds, and by how much memory grew in MiB."""
    before, longest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    for case in cases:
        start = time.process_time()
        case()
        longest = max(longest, time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"slowest {longest:.3f} s, memory grew by {grown:.0f} MiB")
    return longest, grown


@pytest.mark.slow
def test_of_ten_thousand_mutations_none_takes_a_second_or_256_mib(tmp_path):
    rng, files = np.random.default_rng(3), models(tmp_path)
    trained = [plan(load_model(file)[0]).document for file in sorted(MODELS.glob("*_w*.npz"))]
    path = tmp_path / "mutated.npz"

    def document():
        made = mutated_document(rng, DOCUMENTS * 3 + trained)
        return lambda: refused(made)

    def file():
        mutate_file(rng, path, files)
        return lambda: refused_file(path)

    longest, grown = slowest(file() if i % 3 == 0 else document() for i in range(10_000))

    assert longest < 1 and grown < 256


@pytest.mark.slow
def test_documents_as_large_as_they_may_be_take_seconds_and_little_memory():
    room = DOCUMENT_LIMIT_BYTES
    texts = [
        b"[" + b"[]," * (room // 3 - 1) + b"1]", b"[" + b"{}," * (room // 3 - 1) + b"1]",
        b'{"a":' + b'"' + b"\\u0061" * (room // 6 - 10) + b'"}',
        b"[" + b"999," * (room // 4 - 1) + b"1]",
        b"{" + b",".join(b'"%d":1' % i for i in range(room // 12)) + b"}",
    ]  # fmt: skip

    longest, grown = slowest((lambda text=text: refused(text)) for text in texts)

    assert longest < 5 and grown < 256


@pytest.mark.parametrize("source", ["softspoken4", "silent-b10-b10", "silent-b13-b13"])
def test_large_tensors_in_the_smallest_tiles_are_priced_at_once(source):
    """Once 900,000 costs were added one by one, whatever the deadline."""
    image = TensorType((2048, 2048, 8), 8, 0)
    flat = dataclasses.replace(image, nonnegative=True)
    relus = [Relu(f"r{i}", (f"r{i - 1}" if i else "x",), flat) for i in range(7)]
    graph = Graph((Input("x", (), image), *relus))
    tuning = Tuning(tile_elements=256, stream_above=0)
    preset = dataclasses.replace(PRESETS["pqjax"], source=SOURCES[source])
    made = plan(graph, dataclasses.replace(preset, passes=(), tuning=tuning))

    longest, grown = slowest([lambda: refused(made.document)])

    assert refused(made.document) is None and longest < 2 and grown < 256
