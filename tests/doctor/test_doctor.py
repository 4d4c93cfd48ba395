"""`pqjax doctor`: well where all is there, and of every kind of trouble what it is and what to do."""

import dataclasses
import json
import os
import pathlib
import re
import resource
import tomllib

import numpy as np
import pytest

import pqjax
from pqjax.cli import main
from pqjax.doctor import examine, try_out
from pqjax.doctor.folders import DATA, room_findings, tls_findings
from pqjax.doctor.machine import (
    FEATURES,
    LEAST_BYTES,
    features,
    machine_findings,
    network_findings,
    this_machine,
)
from pqjax.doctor.packages import EXTRAS, missing, wanted_packages, within
from pqjax.engine.rates import keep_rates, rates_path
from pqjax.engine.store import Store
from pqjax.errors import PqjaxError, WireError
from pqjax.graph import reference
from pqjax.wire.timeline import NOMINAL

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the test's own, on a machine that was measured, and no data."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PQJAX_DATA", raising=False)
    keep_rates(NOMINAL)
    return tmp_path / "pqjax"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Has this project installed, as far as metadata go, that wants these packages."""

    def install(*requirements, python=">=3.11"):
        place = tmp_path / "site" / "pqjax-9.dist-info"
        place.mkdir(parents=True)
        lines = [f"Requires-Dist: {line}\n" for line in requirements]
        head = f"Metadata-Version: 2.1\nName: pqjax\nVersion: 9\nRequires-Python: {python}\n"
        (place / "METADATA").write_text(head + "".join(lines))
        monkeypatch.syspath_prepend(str(place.parent))

    return install


def told(capsys, *words):
    """What the command says, as JSON; whether it ended with 0."""
    code = main(["doctor", "--json", *map(str, words)])
    tree = json.loads(capsys.readouterr().out)
    assert tree["well"] == (code == 0)
    return tree


def findings(tree, wrong=True):
    return [
        f"{each['what']} -> {each['do']}" for each in tree["findings"] if each["wrong"] == wrong
    ]


def test_where_all_is_there_the_command_ends_with_0_and_says_what_there_is(installed, capsys):
    installed("numpy>=1", "pillow>=1; extra == 'web'", "no-such-thing>=2; extra == 'tls'")

    assert main(["doctor"]) == 0

    out, err = capsys.readouterr()
    assert err == "pqjax: networks can be served and asked about here\n"
    assert re.search(rf"^  numpy +{re.escape(np.__version__)}$", out, re.M)
    assert re.search(r"^  tls +lacks no-such-thing: pip install 'pqjax\[tls\]'", out, re.M)
    assert re.search(r"^  web +pillow \d", out, re.M)
    assert re.search(r"^  memory +[\d.]+ GB", out, re.M) and "wrong:" not in out
    assert str(rates_path()) in out


def test_json_says_the_same(installed, capsys):
    installed("numpy>=1")

    tree = told(capsys)

    assert tree["well"] and findings(tree) == [] and tree["version"] == pqjax.__version__
    assert [(each["name"], each["found"]) for each in tree["packages"]] == [
        ("numpy", np.__version__)
    ]


@pytest.mark.parametrize(
    "requirement,message",
    [
        (
            "no-such-thing>=2",
            "no-such-thing is missing, and >=2 is needed -> pip install 'no-such-thing>=2'",
        ),
        ("numpy<1.5,>=1", f"numpy is {np.__version__}, and <1.5,>=1 is needed -> pip install"),
    ],
)
def test_a_package_that_all_need(requirement, message, installed, capsys):
    installed(requirement)

    tree = told(capsys)

    assert not tree["well"] and findings(tree)[0].startswith(message)


def test_an_extra_of_another_version_is_advice(installed, capsys):
    installed("numpy<1.5; extra == 'plots'")

    tree = told(capsys)

    assert tree["well"]
    assert "and extra plots wants <1.5 -> pip install 'pqjax[plots]'" in findings(tree, False)[0]


def test_another_python(installed, capsys):
    installed("numpy>=1", python=">=4.2")

    assert "and >=4.2 is needed -> install another Python" in findings(told(capsys))[0]


def test_what_is_installed_is_what_pyproject_wants():
    wanted = wanted_packages()
    if not wanted:
        pytest.skip("not installed")
    text = lambda lines: {re.split(r"[<>=\[; ]", line)[0] for line in lines}
    optional = PROJECT["optional-dependencies"]

    assert {each.name for each in wanted if each.extra is None} == text(PROJECT["dependencies"])
    assert set(EXTRAS) == set(optional) - {"dev"}
    for extra in EXTRAS:
        assert {each.name for each in wanted if each.extra == extra} == text(optional[extra])
    for each in wanted:  # a bound that is not understood would hold always
        assert not each.wanted or not within("0", each.wanted), each
    assert set(missing([dataclasses.replace(each, found=None) for each in wanted])) == set(EXTRAS)


@pytest.mark.parametrize(
    "version,bounds,holds",
    [
        ("1.15.1", ">=1.9,<1.16", True), ("1.16.0", ">=1.9,<1.16", False), ("1.8", ">=1.9", False),
        ("2", ">=2.0.0", True), ("2.0", "<=2", True), ("3.1", "!=3.1", False), ("3.1", "==3.1.0", True),
        ("0.5rc1", ">=0.4", True), ("1", ">1", False), ("1", "", True),
    ],
)  # fmt: skip
def test_versions_keep_to_bounds(version, bounds, holds):
    assert within(version, bounds) == holds


def test_a_sandbox_without_loopback():
    (found,) = network_findings("203.0.113.1")  # of a documentation network: nobody's own

    assert found.wrong and "cannot talk to each other" in found.what and "loopback" in found.do
    assert list(network_findings()) == []


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    wrong = findings(told(capsys))

    assert len(wrong) == 2 and all("nothing can be kept in" in each for each in wrong)
    assert "--hints" in wrong[0]


def test_a_disk_without_room_and_folders_that_are_not_there_are_not_made(tmp_path):
    (found,) = room_findings(tmp_path / "a" / "b", least_bytes=1 << 62)

    assert found.wrong and "are free for" in found.what
    assert list(room_findings(tmp_path / "a" / "b", least_bytes=1)) == []
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("which", ["hints", "stored"])
def test_key_files_that_others_may_read(which, cache, capsys):
    Store(cache / "stored")
    (cache / "hints").mkdir()
    (cache / "hints" / "some.key").write_bytes(b"secret")
    os.chmod(cache / "hints" / "some.key", 0o600)
    assert told(capsys)["well"]
    key = {"hints": cache / "hints" / "some.key", "stored": cache / "stored" / "key"}[which]
    os.chmod(key, 0o640)

    (wrong,) = findings(told(capsys))

    assert wrong.startswith(f"{key} is open to other users") and wrong.endswith(f"chmod 600 {key}")


def test_certificates(tmp_path, capsys):
    pytest.importorskip("cryptography")
    folder = tmp_path / "pki"
    pqjax.make_certificates(folder)
    assert told(capsys, "--tls", folder)["well"]

    os.chmod(folder / "server.key", 0o644)
    (folder / "client.pem").write_text("no certificate")

    public, broken = sorted(
        findings(told(capsys, "--tls", folder)), key=lambda text: "cannot" in text
    )
    assert "is taken for the server -> chmod 600" in public
    assert "cannot use the TLS files" in broken and "pqjax certs" in broken
    (nothing,) = tls_findings(tmp_path)
    assert "has neither server.pem nor client.pem" in nothing.what


def test_too_little_memory_and_too_few_descriptors():
    here = this_machine()
    poor = dataclasses.replace(here, available_bytes=LEAST_BYTES - 1, descriptors=20)

    memory, descriptors = (each for each in machine_findings(poor) if each.wrong)

    assert "memory are available" in memory.what and "end other programs" in memory.do
    assert "20 files" in descriptors.what and "ulimit -n 256" in descriptors.do


def test_the_descriptors_are_the_processes_own(capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (255, hard))
    try:
        tree = told(capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert tree["machine"]["descriptors"] == 255
    assert "ulimit -n 256" in findings(tree)[0]


def test_a_slow_processor_is_advice():
    fast = features("model name\t: X\nflags\t\t: fpu aes avx2 avx512f\n")
    slow = features("flags\t\t: fpu sse2\n")
    arm = features("Features\t: fp asimd aes sha2\n")

    assert fast == {"aes": True, "avx2": True, "avx512f": True, "avx512_vnni": False}
    assert slow == dict.fromkeys(FEATURES, False) and arm and arm["avx2"] and arm["aes"]
    assert features("nothing of the kind") is None
    found = list(machine_findings(dataclasses.replace(this_machine(), features=slow)))
    advice = [each.what for each in found if not each.wrong]
    assert len(advice) == 2 and "no aes" in advice[0] and "no avx2" in advice[1]


@pytest.mark.parametrize("content", [None, "{}"])
def test_rates_that_are_not_there_or_damaged_are_advice(content, capsys):
    rates_path().unlink()
    if content is not None:
        rates_path().write_text(content)

    tree = told(capsys)

    assert tree["well"] and tree["rates"] is None
    assert any(
        each.endswith("pqjax calibrate, for half a minute") for each in findings(tree, False)
    )


def test_data_and_what_is_kept_are_told(cache, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data"
    (data / "cifar10").mkdir(parents=True)
    (cache / "xla" / "sub").mkdir(parents=True)
    (cache / "xla" / "sub" / "kernel").write_bytes(bytes(1000))
    monkeypatch.setenv("PQJAX_DATA", str(data))

    tree = told(capsys)

    assert tree["data"] == {
        "folder": str(data),
        "there": {name: name == "cifar10" for name in DATA},
    }
    (kernels,) = (each for each in tree["kept"] if each["what"] == "compiled kernels")
    assert (kernels["files"], kernels["bytes"]) == (1, 1000)
    (data / "cifar10").rmdir()
    assert "there is no data in it" in findings(told(capsys), False)[0]


def test_data_are_those_that_nets_and_experiments_read():
    """Whatever is read below PQJAX_DATA is told of, and nothing else."""
    from nets.data import DATA_SETS
    from nets.photographs import CALIBRATION, TEST

    files = ("nets/mobilenet.py", "experiments/train_nets.py")
    text = "".join((ROOT / file).read_text() for file in files)
    named = re.findall(r'data_folder\("(\w+)"\)|PUBLIC = "(\w+)/', text)

    assert {*DATA_SETS, CALIBRATION, TEST, *("".join(each) for each in named)} == set(DATA)


def test_the_trial_serves_and_asks(capsys, monkeypatch):
    monkeypatch.setattr(
        "pqjax.cli.doctor.settle", lambda: None
    )  # kernels of this run are kept elsewhere
    tree = told(capsys, "--trial")

    assert tree["well"] and tree["trial_s"] > 0


def test_a_trial_that_fails_is_wrong(monkeypatch, capsys):
    def refuse(*_, **__):
        raise WireError("no connection")

    monkeypatch.setattr("pqjax.doctor.trial.connect", refuse)
    monkeypatch.setattr("pqjax.cli.doctor.settle", lambda: None)
    with pytest.raises(PqjaxError):
        try_out(1.0)
    assert "was not served and asked: no connection" in findings(told(capsys, "--trial"))[0]


def test_a_wrong_answer_is_no_trial(monkeypatch):
    monkeypatch.setattr("pqjax.doctor.trial.reference", lambda *of: 1 + reference(*of))

    with pytest.raises(WireError, match="another than the integer"):
        try_out()


def test_an_examination_changes_nothing(cache):
    before = sorted(cache.rglob("*"))

    examine(cache / "hints", cache / "stored")

    assert sorted(cache.rglob("*")) == before
