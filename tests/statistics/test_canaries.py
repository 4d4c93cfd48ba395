"""Planted secrets are nowhere but with their owner: an input, weights, keys of stores and of hints.

Looked for, in every form that they might have, in logs at DEBUG, exceptions, reprs, traces, reports and
metrics of both parties, in all bytes on the wire, and in the memory of the other party's process.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from evidence import record
from looks import Recorder, in_memory, of_integers, of_key, there

import pqjax
from pqjax.graph import Conv, Dense, Flatten, Graph, Input, Relu, Requantize, TensorType

HERE, ROOT = pathlib.Path(__file__).parent, pathlib.Path(__file__).parents[2]
SIDE, MADE = 40, 40
ABSENT = hashlib.sha256(b"a key that nobody has").digest()
SERVE = """import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from pqjax.cli import main
sys.exit(main(sys.argv[1:]))"""
DEADLINE_S = 240


def network():
    """A row of pixels, a filter of one weight for each of many channels, and a dense layer.

    Of such weights no order is another: a run of them is found however they are laid out.
    """

    def image(bits, scale, **fields):
        return TensorType((1, SIDE, MADE), bits, scale, **fields)

    margins = ((0, 0), (0, 0))
    flat = TensorType((SIDE * MADE,), 4, -3, nonnegative=True)
    nodes = (
        Input("image", (), TensorType((1, SIDE, 1), 8, 3)),
        Conv("conv", ("image",), image(13, 5), (1, 1), (1, 1), margins, 4, 2),
        Relu("relu", ("conv",), image(13, 5, nonnegative=True)),
        Requantize("low", ("relu",), image(4, -3, nonnegative=True)),
        Flatten("flat", ("low",), flat),
        Dense("dense", ("flat",), TensorType((1,), 20, -1), 4, 2),
    )
    rng = np.random.default_rng(2026)
    weights = {
        "conv/weight": rng.integers(-8, 8, (1, 1, 1, MADE)),
        "conv/bias": np.zeros(MADE, int),
        "dense/weight": rng.integers(-8, 8, (SIDE * MADE, 1)),
        "dense/bias": np.zeros(1, int),
    }
    return Graph(nodes), weights, rng.integers(-128, 128, (1, SIDE, 1))


GRAPH, WEIGHTS, X = network()
WIDTHS = (4, 8, 13, 14, 16, 20, 32, 64)
OF_INPUT = of_integers(X, WIDTHS)
OF_WEIGHTS = of_integers(WEIGHTS["conv/weight"], WIDTHS) | of_integers(
    WEIGHTS["dense/weight"], WIDTHS
)


@dataclasses.dataclass
class Found:
    """What a run left: texts of each side, both directions of the wire, and looks found in memories.

    `owned`: of the input at the client, of the weights at the server: the search is known to work.
    """

    texts: dict
    wire: tuple
    owned: tuple
    stolen: tuple
    keys: dict


def keys_of(folder):
    """What opens a store, and what makes hints of a model, by their files."""
    found = {}
    for path in folder.rglob("*"):
        if path.name == "key":
            found[f"{path.parent.name}/key"] = path.read_bytes()
        elif path.suffix == ".key":  # magic, two digests, the public seed, the key, a digest
            found["hints"] = path.read_bytes()[8 + 32 + 32 + 16 :][:16]
    return found


@contextlib.contextmanager
def program(*words, **options):
    """A Python process, which is ended."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, **options,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def run(folder, protocol, bare=False):
    """A server's and a client's process, one inference, and a look at everything."""
    files = {name: folder / name for name in ("net.npz", "x.npy", "served.json", "asked.json")}
    pqjax.save_model(files["net.npz"], GRAPH, WEIGHTS)
    np.save(files["x.npy"], X)
    logs = [open(folder / f"{who}.log", "w+") for who in ("server", "client")]
    serve = (
        "-c", SERVE, "serve", files["net.npz"], "--listen", "127.0.0.1:0", "--protocol", protocol,
        "--hints", folder / "hints", "--store", folder / "store", "--trace", files["served.json"],
        "--log", "json", "--metrics", "127.0.0.1:0", "--sessions", "2",
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        for log in logs:
            stack.enter_context(log)
        server = stack.enter_context(program(*serve, stderr=logs[0]))
        assert server.stdout is not None
        recorder = Recorder(server.stdout.readline().split()[-1])
        stack.callback(recorder.close)
        ask = (
            HERE / "planted.py", recorder.address, files["x.npy"], files["asked.json"], folder / "kept",
            *["bare"] * bare,
        )  # fmt: skip
        client = stack.enter_context(program(*ask, stderr=logs[1], stdin=subprocess.PIPE))
        assert client.stdout is not None and client.stdin is not None
        said = ""
        while "ready" not in said:
            line = client.stdout.readline()
            assert line, (folder / "client.log").read_text()[-2000:]
            said += line
        keys = keys_of(folder)
        of_keys = {name: of_key(key) for name, key in keys.items()}
        at_server = set().union(*(of_keys[name] for name in of_keys if name != "kept/key"))
        metrics = _asked((folder / "server.log").read_text())
        try:
            at_client = in_memory(client.pid, OF_INPUT, OF_WEIGHTS | at_server)
            at_other = in_memory(server.pid, OF_WEIGHTS, OF_INPUT | of_keys.get("kept/key", set()))
        except PermissionError as error:
            pytest.skip(f"another process's memory is not to be read here: {error}")
        client.stdin.close()
        client.wait(DEADLINE_S)
        server.wait(DEADLINE_S)
        texts = {
            "client": said + client.stdout.read() + (folder / "client.log").read_text(),
            "client's trace": files["asked.json"].read_text(),
            "server": server.stdout.read() + (folder / "server.log").read_text(),
            "server's report": files["served.json"].read_text(),
            "metrics": metrics,
        }
    wire = tuple(map(bytes, recorder.bytes))
    owned, stolen = (at_client[0], at_other[0]), (at_client[1], at_other[1])
    return Found(texts, wire, owned, stolen, of_keys)


def _asked(log):
    """What a server's door tells, wherever its log says that it is."""
    (line,) = (line for line in log.splitlines() if '"watched"' in line)
    address = json.loads(line)["address"]
    pages = (
        urllib.request.urlopen(f"http://{address}{at}", timeout=10) for at in ("/metrics", "/state")
    )
    return "\n".join(page.read().decode() for page in pages)


def leaks(found):
    """Where a secret is that must not be there."""
    every = OF_INPUT | OF_WEIGHTS | set().union(*found.keys.values())
    told = {
        where: there(every, text.encode(errors="replace")) for where, text in found.texts.items()
    }
    sent = {f"wire {i}": there(every, content) for i, content in enumerate(found.wire)}
    memory = dict(zip(("client's memory", "server's memory"), found.stolen, strict=True))
    return {where: looks for where, looks in {**told, **sent, **memory}.items() if looks}


def told(case, found, control=False):
    where = leaks(found)
    looked = sum(map(len, (OF_INPUT, OF_WEIGHTS, *found.keys.values())))
    outcome = f"seen in {len(where)} places" + (", as must be noticed" if control else "")
    record("statistics", f"canaries: {case}", outcome, runs=1, statistics=looked, control=int(control),
           false_alarms_at_most=2.0**-50)  # fmt: skip
    return where


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["pqjax", "privquant"])
def test_planted_secrets_are_with_their_owner_alone(protocol, tmp_path):
    found = run(tmp_path, protocol)

    assert told(protocol, found) == {}
    assert found.owned[0] and found.owned[1], "the search does not find what is there"
    assert {"store/key", "kept/key"} <= set(found.keys)
    assert "DEBUG" in found.texts["client"] and "DEBUG" in found.texts["server"]
    assert (
        found.texts["client"].count("Traceback") >= 5
        and "session ended" not in found.texts["client"]
    )
    assert str(pqjax.reference(GRAPH, WEIGHTS, X).tolist()) in found.texts["client"]
    assert min(map(len, found.wire)) > 10_000 and "pqjax_" in found.texts["metrics"]


@pytest.mark.slow
def test_an_input_without_a_mask_is_seen_on_the_wire_and_in_the_servers_memory(tmp_path):
    found = run(tmp_path, "privquant", bare=True)

    assert {"wire 0", "server's memory"} <= set(told("control, no mask", found, control=True))


def test_a_secret_in_any_form_is_found():
    forms = [
        X.astype(np.int64).tobytes(), (X & 255).astype(np.uint8).tobytes(),
        X.astype(np.float32).tobytes(),
        repr(X.reshape(-1).tolist()).encode(), X.astype(np.int8).tobytes().hex().encode(),
    ]  # fmt: skip

    assert all(there(OF_INPUT, b"before" + form + b"after") for form in forms)
    assert not there(OF_INPUT, (X + 1).tobytes(), bytes(10_000))


@pytest.mark.slow
def test_a_secret_in_a_process_of_its_own_is_found():
    with program("-c", "import sys; k = bytes(range(64, 96)); print('there', flush=True); "
                 "sys.stdin.read()", stdin=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        try:
            (found, none) = in_memory(process.pid, of_key(bytes(range(64, 96))), of_key(ABSENT))
        except PermissionError as error:
            pytest.skip(f"another process's memory is not to be read here: {error}")

    assert bytes(range(64, 96)) in found and not none
