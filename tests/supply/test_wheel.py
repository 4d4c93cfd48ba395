"""What `make dist` makes: a wheel that runs in an empty environment, and an archive with all sources."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile

import numpy as np
import pytest

import pqjax
from pqjax.doctor.trial import trial_network

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
WAIT_S = 600


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Wheel and archive, as `make dist` makes them."""
    folder = tmp_path_factory.mktemp("dist")
    words = ["make", "dist", f"DIST={folder}", f"PYTHON={sys.executable}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def contents(made):
    """Names of the files in both; the archive's below its one folder."""
    with zipfile.ZipFile(made[0]) as wheel, tarfile.open(made[1]) as archive:
        files = [
            member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()
        ]
        return set(wheel.namelist()), set(files)


def tracked():
    """What is committed of this checkout."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("no checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_has_all_that_runs_and_nothing_else(contents):
    wheel, _ = contents
    code = {name for name in tracked() if name.startswith(("pqjax/", "nets/"))}
    (about,) = {name.split("/")[0] for name in wheel} - {"pqjax", "nets"}

    assert {name for name in code if name.endswith(".py")} <= wheel
    assert {name for name in code if name.startswith("pqjax/web/page/")} <= wheel
    assert {"pqjax/py.typed", "nets/imagenet_classes.txt"} <= wheel
    assert {f"{about}/licenses/LICENSE", f"{about}/METADATA", f"{about}/entry_points.txt"} <= wheel
    assert {name for name in wheel if not name.startswith(about)} <= code
    assert [name for name in wheel if name.endswith(".npz")] == [
        "nets/checkpoints/minionn_w2a4_long.npz"
    ]


def test_the_archive_has_all_that_is_committed_and_no_litter(contents):
    _, archive = contents
    made = {name for name in archive if "egg-info/" in name} | {"PKG-INFO", "setup.cfg"}

    assert tracked() - archive <= {".gitignore"}
    assert not [
        name for name in archive if re.search(r"__pycache__|\.pyc$|/latest/|\.environments", name)
    ]
    assert {
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "Makefile",
        "tests/conftest.py",
    } <= archive - made


class Empty:
    """An environment with nothing in it but what is put there, and a home of its own."""

    def __init__(self, folder):
        venv.create(folder / "venv", with_pip=True)
        self.folder, self.bin = folder, folder / "venv" / "bin"
        gone = ("PYTHONPATH", "PQJAX_DATA", "JAX_COMPILATION_CACHE_DIR")
        self.environ = {k: v for k, v in os.environ.items() if k not in gone}
        self.environ["XDG_CACHE_HOME"] = str(folder / "cache")

    def run(self, name, *words, code=0):
        done = subprocess.run(
            [self.bin / name, *map(str, words)], cwd=self.folder, env=self.environ,
            capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    @contextlib.contextmanager
    def start(self, *words):
        """`pqjax` with these words: the process, and the first line that it says."""
        process = subprocess.Popen(
            [self.bin / "pqjax", *map(str, words)], cwd=self.folder, env=self.environ,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()
            process.communicate()


def test_the_wheel_serves_and_asks_in_an_empty_environment_and_shows_itself(made, tmp_path):
    graph, weights = trial_network()
    x = np.arange(graph.input.out.n)
    empty, wheel = Empty(tmp_path), made[0]
    empty.run("pip", "install", "--quiet", wheel)
    pqjax.save_model(tmp_path / "net.npz", graph, weights)
    np.save(tmp_path / "x.npy", x)

    assert "doctor" in empty.run("pqjax", "--help").stdout
    told = json.loads(empty.run("pqjax", "doctor", "--json").stdout)
    assert told["well"] and not [each for each in told["findings"] if each["wrong"]]
    lacking = {each["extra"] for each in told["packages"] if each["found"] is None}
    assert {"web", "tls", "watch"} <= lacking
    with empty.start("serve", "net.npz", "--listen", "127.0.0.1:0") as (_, line):
        asked = empty.run("pqjax", "infer", line.split()[-1], "x.npy", "--json")
    wanted = np.asarray(pqjax.reference(graph, weights, x)).tolist()
    assert json.loads(asked.stdout)["outputs"] == [wanted]
    refused = empty.run("pqjax", "demo", "--quick", code=1).stderr
    assert "which is not installed: pip install 'pqjax[web]'" in refused

    empty.run("pip", "install", "--quiet", f"{wheel}[web]")
    with empty.start("demo", "--quick", "--listen", "127.0.0.1:0") as (process, line):
        page, _, token = line.removeprefix("open ").partition("?token=")
        assert b"<html" in fetched(page, token).read().lower()
        assert shown(fetched(page + "events", token)) == ("ready", "minionn_w2a4_long")
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def fetched(url, token):
    """What the page of a demo answers who knows its token."""
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    return urllib.request.urlopen(asked, timeout=WAIT_S)


def shown(stream):
    """How the demo's start ends, and with which network, by its stream of events."""
    with stream:
        for line in stream:
            state = json.loads(line[6:]) if line.startswith(b"data: ") else {"stage": None}
            if state["stage"] in ("ready", "failed"):
                return state["stage"], (state["network"] or {}).get("name")
    return None
