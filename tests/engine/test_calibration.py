"""What work takes this machine: found out of times, kept in a file that may hold anything."""

import dataclasses
import json

import numpy as np
import pytest

from pqjax.engine.calibration import INFERENCES, Observed, calibrate, fitted, plans
from pqjax.engine.rates import keep_rates, kept_rates, rates_path
from pqjax.engine.sample import sample_network
from pqjax.errors import DataError
from pqjax.graph import validate
from pqjax.wire.timeline import NOMINAL
from pqjax.wire.work import UNITS

TRUE = np.array(NOMINAL.seconds) * np.linspace(0.5, 2, len(UNITS))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def seen(rng, n=400):
    """Layers of some units each, in the time that TRUE makes of them."""
    amounts = rng.uniform(0, 0.2, (n, len(UNITS))) / TRUE * (rng.random((n, len(UNITS))) < 0.3)
    return [Observed(tuple(row), float(row @ TRUE)) for row in amounts]


def test_rates_are_those_that_explain_the_times():
    found = fitted(seen(np.random.default_rng(1)))

    np.testing.assert_allclose(found.seconds, TRUE, rtol=0.1)


def test_times_that_something_else_took_count_little():
    layers = seen(np.random.default_rng(2))
    disturbed = [x._replace(seconds=20 * x.seconds) for x in layers[::20]]

    found = fitted([*disturbed, *(x for i, x in enumerate(layers) if i % 20)])

    np.testing.assert_allclose(found.seconds, TRUE, rtol=0.2)


def test_rates_of_units_that_nothing_took_are_nominal_and_none_is_negative():
    amounts = tuple(1e6 if unit == "words" else 0.0 for unit in UNITS)

    found = fitted([Observed(amounts, 0.01)] * 50)

    assert found.of("words") == pytest.approx(1e-8, rel=0.1)
    assert found.of("macs") == pytest.approx(NOMINAL.of("macs"))
    assert min(fitted([Observed(amounts, 0.0)] * 50).seconds) >= 0


def test_the_sample_holds_its_values_and_takes_every_unit():
    graph, weights = sample_network()
    validate(graph, weights)

    taken = set()
    for made in plans():
        for i in range(INFERENCES):
            for line in made.schedule(i):
                taken |= set(line.cost.work)

    assert taken | {"bits", "messages"} == set(UNITS)  # these two are in any message


def test_kept_rates_are_read_as_they_were():
    assert kept_rates() is None

    rates = dataclasses.replace(NOMINAL, turn_s=1 / 3)
    assert keep_rates(rates) == rates_path()

    kept = kept_rates()
    assert kept == rates and kept is not None and "measured on " in kept.source


def altered(change):
    tree = json.loads(rates_path().read_text())
    change(tree)
    return json.dumps(tree)


BAD = {
    "empty": lambda: "",
    "not JSON": lambda: "rates",
    "a list": lambda: "[]",
    "another format": lambda: altered(lambda t: t.update(format=2)),
    "another machine": lambda: altered(lambda t: t.update(machine="a faster one")),
    "another version": lambda: altered(lambda t: t.update(version="0.0.0")),
    "a unit missing": lambda: altered(lambda t: t["seconds"].pop("words")),
    "an unknown unit": lambda: altered(
        lambda t: t["seconds"].update(naps=t["seconds"].pop("words"))
    ),
    "a unit more": lambda: altered(lambda t: t["seconds"].update(naps="1")),
    "a number": lambda: altered(lambda t: t.update(turn=1)),
    "no number": lambda: altered(lambda t: t.update(turn="soon")),
    "nan": lambda: altered(lambda t: t.update(turn="nan")),
    "infinite": lambda: altered(lambda t: t["seconds"].update(words="inf")),
    "negative": lambda: altered(lambda t: t["seconds"].update(words="-1e-9")),
    "very slow": lambda: altered(lambda t: t["seconds"].update(words="1e9")),
    "huge": lambda: "{" + " " * (1 << 20) + "}",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_file_of_rates_is_refused_and_written_anew(name):
    keep_rates(NOMINAL)
    rates_path().write_text(BAD[name]())

    with pytest.raises(DataError, match="holds no rates .*: run `pqjax calibrate`"):
        kept_rates()
    keep_rates(NOMINAL)
    assert kept_rates() == NOMINAL


def test_rates_that_are_not_utf8_or_a_folder_are_refused():
    keep_rates(NOMINAL)
    rates_path().write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError):
        kept_rates()
    rates_path().unlink()
    rates_path().mkdir()
    with pytest.raises(DataError):
        kept_rates()


@pytest.mark.slow
def test_this_machine_is_measured():
    rates = calibrate()

    assert rates.source == "measured" and len(rates.seconds) == len(UNITS)
    assert min(rates.seconds) >= 0 and rates.of("b12") > 0 and rates.of("blocks") > 0
