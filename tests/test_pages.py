"""Pages of docs/ do what they say: every block is run, or says why it is not."""

import argparse
import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time
import tomllib
import urllib.request

import jax
import numpy as np
import pytest
from installed import entry_points
from page_blocks import PAGES, README, ROOT, blocks, is_command, started
from PIL import Image
from serving import PLAN, WEIGHTS, X

import pqjax
from pqjax.cli import main, parser
from pqjax.wire.cost import Cost

BLOCKS = [block for page in PAGES if page != README for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.kind == "python" and not block.excuse]
COMMANDS = [block for block in BLOCKS if block.kind == "commands"]
PROTOCOLS = [block for block in PYTHON if block.page.parent.name == "protocols"]
NETWORK = "nets/checkpoints/minionn_w2a4.npz"
WAIT_S = 60.0
COUNTED = re.compile(r"^pqjax_answers_total\{.*\} 1\.0$", re.MULTILINE)
# Why blocks are not run, and how many.
EXCUSES = {"it takes a Ray cluster": 3, "it takes a browser": 1}


def every(found):
    """The test for each of some blocks, called by where it stands."""
    return pytest.mark.parametrize("block", found, ids=[block.name for block in found])


def run(block, names=None):
    names = {} if names is None else names
    exec(compile(block.text, block.name, "exec"), names)
    return names


def test_blocks_that_are_not_run_say_why_and_are_counted():
    reasons = [block.excuse for page in PAGES for block in blocks(page) if block.excuse]

    assert {reason: reasons.count(reason) for reason in reasons} == EXCUSES


def test_blocks_are_told_apart():
    commands = ["pqjax plan net.npz", "PYTHONPATH=. python -m page_pictures cat.png"]
    others = ["x = x0 + x1", "1. server -> client", '{"error": 1}']

    assert [is_command(text) for text in (*commands, *others)] == [True] * 2 + [False] * 3
    assert len(PYTHON) > 16 and len(COMMANDS) > 10


@every(PROTOCOLS)
def test_formulas_of_a_protocol_are_what_the_cost_model_says(block):
    run(block)


@every(PROTOCOLS)
def test_a_cost_model_that_says_a_bit_more_is_noticed(block, monkeypatch):
    monkeypatch.setattr(Cost, "bits", property(lambda cost: cost.sent[0] + cost.sent[1] + 1))

    with pytest.raises(AssertionError):
        run(block)


def test_every_protocol_has_a_page_of_the_same_parts():
    parts = ["Identity", "Steps", "Bits", "Assumption", "Source", "In the code"]
    pages = {block.page for block in PROTOCOLS}

    assert pages == set((ROOT / "docs" / "protocols").glob("*.md")) - {
        ROOT / "docs" / "protocols" / "index.md"
    }
    for page in pages:
        assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == parts, page


@pytest.mark.parametrize("page", [pytest.param("index", marks=pytest.mark.slow), "costs"])
def test_the_python_of_a_page_runs(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    names: dict = {}

    for block in PYTHON:
        if block.page == ROOT / "docs" / f"{page}.md":
            run(block, names)

    assert names and "MB" in capsys.readouterr().out


def test_a_server_is_watched_as_the_page_says():
    pytest.importorskip("prometheus_client")
    (block,) = [block for block in PYTHON if block.page.name == "serving.md"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        watched = f"127.0.0.1:{free.getsockname()[1]}"
    text = block.text.replace("127.0.0.1:9100", watched).replace("127.0.0.1:7700", "127.0.0.1:0")
    names = {"pqjax": pqjax, "plan": PLAN, "weights": WEIGHTS}
    thread = threading.Thread(target=run, args=(block._replace(text=text), names), daemon=True)

    thread.start()
    try:
        until = time.monotonic() + WAIT_S
        while "server" not in names and time.monotonic() < until:
            time.sleep(0.02)
        with pqjax.connect(names["server"].address) as session:
            session.infer(X)
        told = ""
        while not COUNTED.search(told) and time.monotonic() < until:
            with urllib.request.urlopen(f"http://{watched}/metrics") as answer:
                told = answer.read().decode()
    finally:
        if "server" in names:
            names["server"].close()
        thread.join(WAIT_S)

    assert COUNTED.search(told), told
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def options():
    return parser()


@every(COMMANDS)
def test_commands_are_ones_that_there_are(block, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for words in block.commands:
        if words[0] == "pqjax":
            assert isinstance(options.parse_args(words[1:]), argparse.Namespace)
        elif words[0] == "pip":
            assert words[1] == "install"
            wanted = re.search(r"\[(.*)\]", words[2])
            assert not wanted or set(wanted[1].split(",")) <= set(extras)


# The rest takes minutes.


def lay_out(folder):
    """What commands name, in a folder: networks, pictures, labelled inputs, certificates."""
    (folder / "nets").mkdir()
    (folder / "nets" / "checkpoints").symlink_to(ROOT / "nets" / "checkpoints")
    for name in ("network", "cats", "dogs"):
        (folder / f"{name}.npz").symlink_to(ROOT / NETWORK)
    rng = np.random.default_rng(0)
    for i in range(12):
        place = folder / "photos" / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    for name in ("cat.png", "cat.jpg", "picture.jpg"):
        Image.fromarray(pixels).save(folder / name)
    x = rng.integers(-128, 128, (4, 32, 32, 3))
    np.save(folder / "x.npy", x[0])
    np.savez(folder / "test.npz", x=x, y=np.arange(4))


class Runner:
    """Runs commands as they stand in a page, but for ports, hosts and what never ends."""

    def __init__(self, folder, stack, capsys):
        self.folder, self.stack, self.capsys = folder, stack, capsys
        self.ports = {}  # by the port that a page names, and whether it is one with TLS

    def turned(self, text, tls=False):
        """With the ports that servers have here."""
        text = text.replace("server.example", "localhost")
        for (said, secured), port in self.ports.items():
            if secured == tls:
                text = text.replace(f":{said}", f":{port}")
        return text

    def begin(self, words, tell):
        """A command in the background; its first line that has `tell`."""
        lines = self.stack.enter_context(started(words, self.folder))
        return next(line for line in lines if tell in line)

    def serve(self, words):
        words = [re.sub(r"^[\d.]+:7700$", "127.0.0.1:0", word) for word in words]
        if "--listen" not in words:
            words = [*words, "--listen", "127.0.0.1:0"]
        if "--metrics" in words:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.ports["9100", False] = free.getsockname()[1]
            words = [self.turned(word) for word in words]
        told = self.begin(words, "listening on")
        self.ports["7700", "--tls" in words] = told.split()[-1].rpartition(":")[2]

    def run(self, block):
        for line, words in zip(block.lines, block.commands, strict=True):
            self.one(line, words)

    def one(self, line, words):
        kind, words = words[0], words[1:]
        if kind == "pip":  # `test_commands_are_ones_that_there_are`
            return
        if kind == "curl":
            if shutil.which("curl") is None:
                pytest.skip("no curl")
            done = f"{self.turned(line)} -sS -o answer.json && test -s answer.json"
            subprocess.run(["bash", "-c", done], cwd=self.folder, check=True)
            return
        assert kind == "pqjax", kind
        if words[0] == "serve":
            self.serve(words)
            return
        if words[0] == "demo":
            self.begin([*words, "--listen", "127.0.0.1:0"], "open http")
            return
        words = [self.turned(word, "--tls" in words) for word in words]
        if words[0] == "client":
            named = "--listen" in words
            told = self.begin(words if named else [*words, "--listen", "127.0.0.1:0"], "http")
            if not named:
                self.ports["7800", False] = told.split()[-1].rpartition(":")[2]
        elif "--fill" in words:
            self.begin(words, "1 of 20 in store")
        elif words[0] == "top":
            self.foreground([*words, f"127.0.0.1:{self.ports['9100', False]}", "--once"])
        else:
            self.foreground(words)

    def foreground(self, words):
        # Importers promote types, as all that trains does; here they are in a process that is strict.
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            assert main(words) == 0, words
        assert self.capsys.readouterr().out, words


PAGES_WITH_COMMANDS = sorted({b.page for b in COMMANDS if not b.excuse})


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    for needed in ("cryptography", "prometheus_client", "starlette", "onnxruntime"):
        pytest.importorskip(needed)
    onnx = pytest.importorskip("onnx")
    from onnx_models import lenet

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(entry_points(tmp_path))
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path)
    if page.name == "importing.md":
        onnx.save(lenet(17), "model.onnx")
        (tmp_path / "photos" / "one.jpg").symlink_to(tmp_path / "cat.jpg")
    assert main(["certs", "pki", "--name", "localhost"]) == 0
    shutil.copytree("pki", "client")
    before = {"page.md": ["serve cats.npz dogs.npz --tls pki", "serve cats.npz"]}
    with contextlib.ExitStack() as stack:
        runner = Runner(tmp_path, stack, capsys)
        for words in before.get(page.name, []):
            runner.serve(words.split())
        for block in blocks(page):
            if block.kind == "commands" and not block.excuse:
                runner.run(block)
