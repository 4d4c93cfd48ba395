"""Bytes of any kind, at every parser that strangers feed: taken or refused, soon, in typed errors.

The search that code coverage guides is `fuzzing`; what it found is in `corpus/` and tried again here.
"""

import dataclasses
import importlib.util
import time

import fuzzing
import numpy as np
import pytest
from artefacts import valid
from evidence import record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutation import changed
from targets import MOST_TEXT, TARGETS, Finding

from pqjax.errors import CheckpointError, WireError

EVERY = pytest.mark.parametrize("name", TARGETS)
FEW = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@EVERY
def test_valid_artefacts_are_taken(name):
    taken = [TARGETS[name].tried(data) for data in valid(name)]

    # Not all of them: some are parts that a checksum or a proof is to keep out.
    assert any(taken)


@EVERY
def test_what_was_found_before_raises_typed_errors_alone(name):
    inputs, begin = fuzzing.corpus(name), time.monotonic()

    for data in inputs:
        TARGETS[name].tried(data)

    seconds = round(time.monotonic() - begin, 2)
    record("fuzz", f"{name}: corpus", "no finding", inputs=len(inputs), seconds=seconds, findings=0)
    assert inputs


@st.composite
def mutants(draw, name):
    """An artefact, changed up to four times."""
    artefacts = valid(name)
    data = draw(st.sampled_from(artefacts))
    for _ in range(draw(st.integers(1, 4))):
        data = changed(data, artefacts, lambda n: draw(st.integers(0, n - 1)))
    return data


@EVERY
def test_mutated_artefacts_raise_typed_errors_alone(name):
    inputs, begin = [], time.monotonic()

    @FEW
    @given(mutants(name))
    def tried(data):
        inputs.append(TARGETS[name].tried(data))

    tried()

    seconds = round(time.monotonic() - begin, 2)
    record("fuzz", f"{name}: mutated artefacts", "no finding", inputs=len(inputs), seconds=seconds,
           findings=0)  # fmt: skip
    assert len(inputs) >= FEW.max_examples and not all(inputs)


@EVERY
@pytest.mark.slow
def test_many_more_mutated_artefacts(name):
    rng, artefacts, begin = np.random.default_rng(5), valid(name), time.monotonic()
    inputs = 0
    while time.monotonic() < begin + 20:
        data = artefacts[int(rng.integers(len(artefacts)))]
        for _ in range(int(rng.integers(1, 6))):
            data = changed(data, artefacts, lambda n: int(rng.integers(n)))
        TARGETS[name].tried(data)
        inputs += 1

    record("fuzz", f"{name}: many mutated artefacts", "no finding", inputs=inputs, seconds=20,
           findings=0)  # fmt: skip
    assert inputs > 100


@EVERY
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install pqjax[fuzz]"
)
def test_a_search_guided_by_coverage_finds_nothing(name, tmp_path):
    ended = fuzzing.search(name, 30, tmp_path)

    fuzzing.told(name, ended)
    assert ended.finding is None and ended.inputs > 100 and ended.covered > 0


def test_the_corpus_is_small_and_has_a_target_for_every_folder():
    folders = [path for path in fuzzing.CORPUS.iterdir() if path.is_dir()]
    sizes = {path.name: sum(file.stat().st_size for file in path.iterdir()) for path in folders}

    assert set(sizes) == set(TARGETS) == set(fuzzing.NAMES)
    assert sum(sizes.values()) < 300_000 and max(sizes.values()) <= fuzzing.MOST_KEPT_BYTES


# Of the targets themselves: what they are to notice.


def careless(take):
    return dataclasses.replace(TARGETS["frames"], take=take, errors=(CheckpointError, WireError))


def _untyped(data):
    raise IndexError("7")


def _wrapped(data):
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        raise WireError("nothing foresaw this") from error


def _steering(data):
    raise WireError(f"no frame: {data.decode()}")


def _slow(data):
    begin = time.process_time()
    while time.process_time() < begin + 0.3:
        pass
    return True


def _hungry(data):
    return bool(np.ones(80 << 20, np.uint8).sum())


@pytest.mark.parametrize(
    ("take", "data", "said"),
    [
        (_untyped, b"", "IndexError: 7"),
        (_wrapped, b"", "not foreseen: ZeroDivisionError"),
        (_steering, b"\x1b[2J", "a text of"),
        (_steering, b"x" * MOST_TEXT, "a text of"),
        (_slow, b"", "s, .* MiB more"),
        (_hungry, b"", "s, .* MiB more"),
    ],
)
def test_a_careless_parser_is_a_finding(take, data, said, monkeypatch):
    monkeypatch.setattr("targets.MOST_SECONDS", 0.2 if take is _slow else 5.0)
    monkeypatch.setattr("targets.MOST_MORE_BYTES", 32 << 20)

    with pytest.raises(Finding, match=said):
        careless(take).tried(data)


def test_typed_errors_are_no_finding():
    def refuse(data):
        raise CheckpointError("no artefact")

    assert careless(refuse).tried(b"") is False
