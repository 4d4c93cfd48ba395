"""Valid artefacts for every target: what is mutated, and what a search for others begins with.

Whatever a target needs of its own (a plan, keys) is made here, once a process and always the same, so
that bytes found in one process mean the same in another.
"""

import dataclasses
import functools
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
from hostile import members
from networks import ENCRYPTED, owned
from onnx_models import NETWORKS
from tiny import tiny_graph, tiny_weights

from pqjax.crypto.prg import Randomness
from pqjax.crypto.sealed import KEY_BYTES, seal
from pqjax.engine.execute import prepare
from pqjax.engine.half import set_aside, to_bytes
from pqjax.engine.hints import Hints, header
from pqjax.engine.model import ServedModel
from pqjax.engine.store import NAME_BYTES, Batch
from pqjax.graph import save_model
from pqjax.he import Version
from pqjax.planner import plan
from pqjax.planner.presets import OTS
from pqjax.protocols.party import make_party, run_pair
from pqjax.wire.channel import as_bytes, local_pair
from pqjax.wire.handshake import greet_client, greet_server, only, plan_digest

KEY = bytes(range(KEY_BYTES))
ABOUT = b"about"
NAME = "cats"
TICKET = bytes(range(32))


@functools.cache
def folder():
    """One for files of this process alone; in memory, where there is such a place."""
    memory = pathlib.Path("/dev/shm")
    kept = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
    return kept, pathlib.Path(kept.name)


def place(name):
    """A file in it."""
    return folder()[1] / name


@functools.cache
def encrypted_plan():
    """Of a small network: every linear layer on ciphertexts, with hints; OTs from a store."""
    return plan(tiny_graph(), dataclasses.replace(ENCRYPTED, source=OTS["softspoken"]))


@functools.cache
def served():
    """That network at a server, always of the same version."""
    return ServedModel.of_version(encrypted_plan(), tiny_weights(), Version(bytes(16), bytes(16)))


@functools.cache
def hints():
    """Its hints."""
    found = served().hints
    assert isinstance(found, Hints)
    return found


@functools.cache
def halves():
    """Both parties' halves of a preparation, as bytes."""
    made, model = encrypted_plan(), served()

    def side(rank):
        def run(wire):
            party = make_party(wire, rank, made.preset.source, Randomness(bytes([rank]) * 16))
            ready = prepare(party, made, owned(party, made, model))
            return to_bytes(set_aside(party, made, ready, b"a name"))

        return run

    return run_pair(side(0), side(1))


def batch():
    """What a store has of a client."""
    return Batch(bytes(NAME_BYTES - 1) + b"\x01", KEY, bytes(32))


class _Noted:
    """A wire that keeps what is sent through it."""

    def __init__(self, wire):
        self._wire, self.sent = wire, []

    def __getattr__(self, name):
        return getattr(self._wire, name)

    def send(self, payload, clock, where, lane=0):
        self.sent.append(bytes(as_bytes(payload)))
        self._wire.send(payload, clock, where, lane)


def document():
    """The plan that a greeting is about; not a real one, which would be long."""
    return b'{"a plan": "of few bytes"}'


@functools.cache
def greetings():
    """Payloads of whole greetings, by who sends them: (server's, client's) of each kind."""
    found = []
    kinds: tuple[dict[str, Any], ...] = (
        {}, {"name": NAME}, {"ticket": TICKET, "offers": True}, {"digest": True},
    )  # fmt: skip
    for options in kinds:
        digest = plan_digest(document()) if options.pop("digest", False) else None
        noted: list[Any] = [_Noted(wire) for wire in local_pair(5.0)]
        find = (lambda asked: document()) if "name" in options else only(document())

        def server(_, wire=noted[0], find=find):
            greet_client(wire, find)

        def client(_, wire=noted[1], digest=digest, options=options):
            greet_server(wire, digest, **options)

        run_pair(server, client)
        found.append((noted[0].sent, noted[1].sent))
    return found


@functools.cache
def documents():
    """Plans of a small network, by several protocols."""
    graph = tiny_graph()
    return [plan(graph, name).document for name in ("pqjax", "privquant", "cheetah")]


@functools.cache
def model_file():
    """A small model file: its bytes, and its members."""
    path = place("artefact.npz")
    save_model(path, tiny_graph(), tiny_weights(), {"classes": ["a", "b"], "rate": 0.5})
    return path.read_bytes(), members(path)


@functools.cache
def key_file():
    """What a server keeps beside hints."""
    from pqjax.engine.hints import find_made, keep_made

    where = place("keys")
    version = Version(bytes(16), bytes(16))
    keep_made(where, encrypted_plan(), tiny_weights(), version, hints())
    assert find_made(where, encrypted_plan(), tiny_weights()) is not None
    (path,) = where.glob("*.key")
    return path.name, path.read_bytes()


@functools.cache
def networks():
    """ONNX models."""
    return [NETWORKS[name](13).SerializeToString() for name in ("lenet", "branched")]


WORDS = [
    "127.0.0.1:7700", "[::1]:7700", "localhost:1", "fleet+http://127.0.0.1:80/cats@2", "cats@2",
    "http://127.0.0.1:8000", "200mbps,13ms", "lan",
    json.dumps({"model": "cats", "owner": "certificate " + "0a" * 32, "wait_s": 20}),
    json.dumps({"address": "127.0.0.1:7700", "ticket": "0a" * 32, "model": None}),
]  # fmt: skip


def frame(step, payload, clock=0):
    """A frame as it stands on a stream."""
    length = len(payload).to_bytes(8, "little")
    return step.to_bytes(4, "little") + clock.to_bytes(4, "little") + length + payload


def _framed():
    tickets = bytes([2 | 8, 0, 3, 0, 0, 16, 0])
    first = np.arange(3, dtype=np.uint8).tobytes()
    alive = ((1 << 32) - 1).to_bytes(4, "little") + bytes(12)
    goodbye = alive[:4] + (2).to_bytes(4, "little") + bytes(8)
    yield tickets + frame(0, first) + alive + frame(1, bytes(16), 1)
    yield tickets + frame(0, first) + goodbye
    lanes = bytes([3, 0, 4, 0, 1, 5, 0, 2, 0, 0])
    yield lanes + frame(1 << 30, bytes(5)) + frame(2 << 30, b"") + frame(0, bytes(4))
    yield bytes([1 | 16, 0, 2 * 64 + 7, 0]) + frame(0, b"ab")


def _stored():
    server, client = halves()
    yield b"\x00" + seal(KEY, ABOUT, b"data")
    yield b"\x01" + server
    yield b"\x02" + client
    yield b"\x03" + KEY
    yield b"\x04" + seal(KEY, ABOUT, bytes(64))
    yield b"\x05" + seal(KEY, ABOUT, b"half")
    yield b"\x06" + batch().name + bytes(16) + bytes([3]) + bytes(7) + bytes(40) + bytes(40)


def _hint_files():
    _, key = key_file()
    whole = hints().whole.tobytes()
    yield b"\x00" + whole[:4096]
    yield b"\x01" + whole[len(header(encrypted_plan(), bytes(16))) :][:64]
    yield b"\x02" + key[:-32]
    yield b"\x03" + whole[:256]


@functools.cache
def valid(target):
    """Artefacts for a target by its name, as it takes them."""
    if target == "frames":
        return list(_framed())
    if target == "greeting":
        served = [b"\x03" + b"".join(client) for _, client in greetings()]
        served[2] = b"\x07" + served[2][1:]  # with a ticket
        asked = [
            bytes([2 | i << 3]) + b"".join(server) for i, (server, _) in enumerate(greetings())
        ]
        return served + asked
    if target == "words":
        return [bytes([i]) + word.encode() for i in range(8) for word in WORDS] + [b"\x08" + TICKET]
    if target == "plan":
        return list(documents())
    if target == "model":
        whole, found = model_file()
        return [b"\x00" + whole, *(bytes([i + 1]) + found[name][128:]
                                   for i, name in enumerate(("graph.npy", "meta.npy")))]  # fmt: skip
    if target == "hints":
        return list(_hint_files())
    if target == "stored":
        return list(_stored())
    if target == "onnx":
        return list(networks())
    raise KeyError(target)
