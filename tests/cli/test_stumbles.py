"""What new users stumble over at the command line: what was expected, what came, what to do."""

import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image
from serving import GRAPH, WEIGHTS, X, serving

import pqjax
from pqjax.cli import main
from pqjax.engine import memory
from pqjax.engine.rates import keep_rates
from pqjax.errors import PlanError
from pqjax.graph import Graph, Input, Relu, TensorType, save_model
from pqjax.planner import PRESETS, plan
from pqjax.wire.timeline import NOMINAL

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with what people have lying about."""
    folder = tmp_path_factory.mktemp("files")
    save_model(folder / "net.npz", GRAPH, WEIGHTS, {"classes": None})
    (folder / "net.json").write_text(GRAPH.to_json())
    Image.new("RGB", (40, 30)).save(folder / "cat.png")
    Image.new("RGB", (40, 30)).save(folder / "cat.jpg")
    np.save(folder / "floats.npy", X * 1.0)
    np.save(folder / "x.npy", X)
    (folder / "net.onnx").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0")
    np.savez(folder / "state.npz", step=np.array(3))
    (folder / "kinds.json").write_text('{"format": 1, "nodes": [{"kind": "LeakyRelu"}]}')
    (folder / "other.json").write_text('{"format": 1}')
    return folder


@pytest.fixture
def uncalibrated(monkeypatch, tmp_path):
    """A machine whose rates nobody has measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


STUMBLES = {
    "an ONNX file": ("plan net.onnx", "looks like ONNX; .*integer graphs .*save_model"),
    "a picture instead of a network": ("plan cat.png", "is a picture; the network file .* comes first"),
    "a photograph instead of a network": ("serve cat.jpg", "is a picture"),
    "an array instead of a network": ("serve x.npy", "is one array"),
    "a training checkpoint": ("plan state.npz", "no graph, like a training checkpoint"),
    "a graph without weights": ("serve net.json", "a graph in it has no weights"),
    "a folder": ("plan .", "is a folder"),
    "no such network": ("plan nothing.npz", "no network at nothing.npz"),
    "another system's layer": ("plan kinds.json", "unknown node kind 'LeakyRelu'; .*use Relu"),
    "a layer that is not there": ("explain net.npz conv9", "no layer named 'conv9'; did you mean"),
    "a protocol that is not there": ("plan net.npz --protocol spdz", "unknown protocol 'spdz'; known"),
    "sensitivities that are none": (
        "search net.npz --sensitivity other.json --limit 1GB", "JSON of something else; .*sensitivity",
    ),
    "no limit": ("search net.npz --sensitivity other.json", "one limit expected: --limit 0.5GB, or"),
    "floats": (f"infer {NOBODY} floats.npy", "holds float64, and the network takes integers"),
    "no such input": (f"infer {NOBODY} nothing.npy", "no input at nothing.npy"),
    "a picture's URL": (f"infer {NOBODY} https://x.org/a.png", "is a URL, and .* files only: download"),
    "nobody there": (f"infer {NOBODY} cat.png", "nobody listens on 127.0.0.1:1"),
    "nobody to watch": (f"top {NOBODY}", "no server says at .* what it does .*--metrics 127.0.0.1:1"),
    "a URL for a folder": ("certs https://x.org", "is a URL: a folder expected"),
    "a port in a certificate": ("certs pki --name x.org:7700", "without scheme, port or path"),
    "an empty name in a certificate": ("certs pki --name=", "without scheme, port or path"),
    "a URL in a certificate": ("certs pki --name https://x.org", "without scheme, port or path"),
    "a relay without a network": (f"relay {NOBODY}", "a relay needs --link"),
}  # fmt: skip
MISUSES = {
    "a trace into nowhere": (f"infer {NOBODY} x.npy --trace no/t.json", "there is no folder no: make"),
    "a trace for a folder": (f"infer {NOBODY} x.npy --trace .", "is a folder: name a file in it"),
    "a graph into nowhere": (
        "search net.npz --sensitivity other.json --limit 1GB --out no/g.json", "there is no folder no",
    ),
    "a number that is none": (f"infer {NOBODY} x.npy --deadline soon", "a number above 0 .*'soon'"),
    "half a client": ("serve net.npz --clients 0.5", "a whole number above 0 expected, got '0.5'"),
    "a link without a round trip": ("plan net.npz --link 200", "cannot read the link '200'; expected"),
}  # fmt: skip


def said(capsys, code, words):
    """What a command says that ends with this code, the last line of it and all."""
    try:
        assert main(words.split()) == code
    except SystemExit as end:  # argparse's
        assert end.code == code
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


@pytest.mark.parametrize("name", STUMBLES)
def test_a_stumble_ends_in_one_line_that_says_what_to_do(name, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    words, message = STUMBLES[name]

    last = said(capsys, 1, words)

    assert last.startswith("pqjax: ") and re.search(message, last), last
    assert not (files / "pki").exists()


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_is_refused_before_anything_is_read_or_dialled(name, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    words, message = MISUSES[name]

    assert re.search(message, said(capsys, 2, words))


def asked(address, *words):
    return main(["infer", address, *map(str, words)])


def test_an_array_of_another_shape_is_refused_before_an_inference_begins(files, tmp_path, capsys):
    np.save(tmp_path / "bad.npy", X[:-1])
    with serving() as (address, ends):
        assert asked(address, tmp_path / "bad.npy") == 1
        ends.get(timeout=30)

    last = capsys.readouterr().err.splitlines()[-1]
    assert f"bad.npy, int64 of shape {X[:-1].shape}" in last and f"{X.shape} expected" in last
    assert "offline" not in last


def small(channels):
    """A network that hands an 8-bit picture on."""
    out = TensorType((4, 4, channels), 8, 0, True)
    return Graph((Input("x", (), out), Relu("y", ("x",), out))), {}


@pytest.mark.parametrize("channels,words", [(1, "made grey"), (3, "from 40x30 to 4x4")])
def test_what_was_done_to_a_picture_is_said(channels, words, tmp_path, capsys):
    graph, weights = small(channels)
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "cat.png")
    with serving(plan=plan(graph), weights=weights) as (address, _):
        assert asked(address, tmp_path / "cat.png", "--verbose") == 0

    assert words in capsys.readouterr().err


def test_a_grey_picture_is_one_channel_as_it_is(tmp_path, capsys):
    graph, weights = small(1)
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    Image.fromarray(grey).save(tmp_path / "grey.png")
    with serving(plan=plan(graph), weights=weights) as (address, _):
        assert asked(address, tmp_path / "grey.png", "--json") == 0

    out, err = capsys.readouterr()
    wanted = np.maximum(grey.astype(int) - 128, 0)[..., None].tolist()
    assert json.loads(out)["outputs"] == [wanted]
    assert "made grey" not in err and "scaled" not in err


def test_an_answer_names_the_class_its_score_bytes_and_seconds(files, capsys):
    y = pqjax.reference(GRAPH, WEIGHTS, X).reshape(-1)
    names = [f"kind {i}" for i in range(y.size)]
    made = plan(GRAPH, classes=names)
    with serving(plan=made) as (address, _):
        assert asked(address, files / "x.npy", "--top", 2) == 0
        plain = capsys.readouterr()
        assert asked(address, files / "x.npy", "--json") == 0

    best = int(y.argmax())
    scale = 2.0**-GRAPH.output.out.scale
    assert plain.out.startswith(f"{best} kind {best} ({y[best] * scale:.4g}), ")
    assert re.search(r"1 inferences by pqjax: [\d.]+ MB sent, [\d.]+ MB received, .* s$", plain.err)
    told = json.loads(capsys.readouterr().out)
    assert told["answers"][0][0] == {
        "class": best,
        "name": f"kind {best}",
        "score": y[best] * scale,
    }
    assert told["outputs"][0] == pqjax.reference(GRAPH, WEIGHTS, X).tolist()
    assert told["differences"] == [] and told["seconds"]["each"][0]["online"] > 0


@pytest.mark.parametrize("protocol", PRESETS)
def test_plan_and_explain_speak_json(protocol, files, capsys):
    assert main(["plan", str(files / "net.npz"), "--protocol", protocol, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    made = plan(GRAPH, protocol)

    for phase in ("setup", "offline", "online"):
        assert told[f"{phase}_bytes"] == -(-made.cost(phase).bits // 8)
    assert told["flows"] == (made.cost("offline") + made.cost("online")).flows
    assert 0 < told["linear_bytes"] < told["offline_bytes"] + told["online_bytes"]
    assert [step["layer"] for step in told["steps"]] == [node.name for node in made.graph]
    for step in told["steps"]:
        lines = made.step(step["layer"]).cost
        assert (step["offline_bits"], step["online_bits"]) == (
            lines.offline.bits,
            lines.online.bits,
        )

    layer = next(s["layer"] for s in told["steps"] if s["kind"] in ("Conv", "Dense"))
    assert main(["explain", str(files / "net.npz"), layer, "--protocol", protocol, "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert layer in [s["layer"] for s in one["steps"]] and one["digest"] == told["digest"]
    assert len(one["steps"]) < len(told["steps"])


def test_a_table_explains_its_words_and_seconds_without_a_link(files, capsys, uncalibrated):
    assert main(["plan", str(files / "net.npz"), "--protocol", "privquant"]) == 0

    text = capsys.readouterr().out
    for word in ("formats", "variant", "stored OTs", "flows", "seconds"):
        assert re.search(rf"^{word} +\S", text, re.MULTILINE), word
    assert "  loopback: offline " in text and "by nominal rates" in text
    assert "s on 1000mbps,0.3ms" in text and "as in PrivQuant, table 4" in " ".join(text.split())


def test_what_is_to_be_least_can_be_said(files, capsys, uncalibrated):
    said = {}
    for objective in ("bytes", "online", "total"):
        asked = ["plan", str(files / "net.npz"), "--objective", objective, "--json"]
        assert main(asked) == 0
        said[objective] = json.loads(capsys.readouterr().out)

    online = {name: told["predicted"]["online"] for name, told in said.items()}
    sent = {name: told["offline_bytes"] + told["online_bytes"] for name, told in said.items()}
    assert sent["bytes"] == min(sent.values()) and online["online"] == min(online.values())
    assert said["bytes"]["predicted"]["rates"] == "nominal"


def test_damaged_rates_are_said_and_not_used(files, capsys, uncalibrated):
    path = keep_rates(NOMINAL)
    path.write_text(path.read_text()[:-9])

    assert main(["plan", str(files / "net.npz"), "--json"]) == 0

    told = capsys.readouterr()
    assert "holds no rates" in told.err and "pqjax calibrate" in told.err
    assert json.loads(told.out)["predicted"]["rates"] == "nominal"


def test_every_command_has_help_with_examples_that_parse_and_the_version_is_said(capsys):
    for command in "serve infer plan explain calibrate search certs relay top".split():
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        assert "examples:" in text and f"pqjax {command} " in text, command
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"pqjax {pqjax.__version__}\n"


def test_a_network_too_large_for_the_memory_is_refused_before_anything_is_sent(monkeypatch):
    made = plan(GRAPH, "pqjax")
    least = memory.least_bytes(made)
    assert least > 16 * sum(made.rots)
    with serving() as (address, _):
        monkeypatch.setattr(memory, "available_bytes", lambda: least - 1)
        with pytest.raises(
            PlanError, match=r"takes more than .* GB of memory, and .* are available"
        ):
            pqjax.connect(address)
        with pytest.raises(PlanError, match="of memory"):
            pqjax.Server(made, WEIGHTS, "127.0.0.1:0")
        monkeypatch.setattr(memory, "available_bytes", lambda: least)
        pqjax.connect(address).close()


def test_search_speaks_json_and_nothing_else(capfd, tmp_path):
    checkpoints = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints"
    words = [
        "--sensitivity",
        str(checkpoints / "minionn_sensitivity.json"),
        "--protocol",
        "privquant",
    ]
    graph = str(tmp_path / "found.json")

    assert main(["search", str(checkpoints / "minionn_w4a4.npz"), "--limit", "0.6GB", *words,
                 "--bits", "3,4", "--json", "--out", graph]) == 0  # fmt: skip

    told = json.loads(capfd.readouterr().out)
    assert told["cost"] <= told["limit"] == 0.6 * 8e9 and told["proven"]
    assert main(["plan", graph, "--protocol", "privquant", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["digest"] == told["plan"]["digest"]


def test_plaintext_off_loopback_is_warned_of_at_every_start(files, capsys):
    with serving(address="0.0.0.0:0", insecure_plaintext=True) as (address, _):
        port = address.rpartition(":")[2]
        for _ in range(2):
            words = [files / "x.npy", "--insecure-plaintext", "--deadline", "20"]
            assert asked(f"0.0.0.0:{port}", *words) == 0
            assert "WARNING" in (said := capsys.readouterr().err) and "without TLS" in said
        assert asked(f"127.0.0.1:{port}", *words) == 0

    assert "WARNING" not in capsys.readouterr().err
