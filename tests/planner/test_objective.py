"""Plans for bytes or for seconds, and what they predict."""

import dataclasses
import functools
import pathlib
from unittest import mock

import pytest
from networks import random_network

from pqjax import Link, load_model
from pqjax.errors import PlanError
from pqjax.ot.tuning import Tuning
from pqjax.planner import plan, read_plan
from pqjax.planner.forecast import forecast
from pqjax.planner.plan import STOCK_LAYER, Plan
from pqjax.planner.presets import find_preset
from pqjax.wire.timeline import NOMINAL, Timeline
from pqjax.wire.work import UNITS, Rates

MINIONN = pathlib.Path(__file__).parents[2] / "nets" / "checkpoints" / "minionn_w2a4.npz"
WIDE = Link(mbps=200, rtt_ms=13)


def at_rates(**times):
    """The nominal rates, some of them so many times as slow."""
    seconds = (times.get(u, 1) * s for u, s in zip(UNITS, NOMINAL.seconds, strict=True))
    return dataclasses.replace(NOMINAL, seconds=tuple(seconds))


SLOW_POLYNOMIALS = at_rates(coefficients=1000)


@functools.cache
def made(objective, link=WIDE, rates=NOMINAL):
    graph = load_model(MINIONN)[0]
    return plan(graph, "pqjax", link, inferences=100, objective=objective, rates=rates)


def total(of):
    return sum(of.predicted()[phase] for phase in ("offline", "online"))


def sent(of):
    return of.cost("offline").bits + of.cost("online").bits


def test_a_machine_that_is_slow_at_polynomials_multiplies_by_ot_if_seconds_count():
    fewest, quickest = (made(x, WIDE, SLOW_POLYNOMIALS) for x in ("bytes", "total"))

    assert {s.task.choice.method for s in fewest.steps if s.task.choice} == {"rlwe"}
    assert "ot" in {s.task.choice.method for s in quickest.steps if s.task.choice}
    assert total(quickest) < total(fewest) and sent(quickest) > sent(fewest)


def test_an_online_phase_is_made_short_whatever_comes_before_it():
    online, every = (made(x, WIDE, SLOW_POLYNOMIALS) for x in ("online", "total"))

    assert online.predicted()["online"] <= every.predicted()["online"]
    assert total(online) > total(every)


def test_bytes_are_fewest_whatever_the_machine():
    assert made("bytes").digest == made("bytes", WIDE, SLOW_POLYNOMIALS).digest
    assert sent(made("bytes")) <= min(sent(made("online")), sent(made("total")))


def test_ots_are_made_by_the_set_that_is_quick_here_if_seconds_count():
    fast = at_rates(b10=100, b11=100, b12=100)

    assert made("total", None, fast).preset.source.name.startswith("silent-b13-")
    assert made("bytes", None, fast).preset.source == made("bytes", None).preset.source


@pytest.mark.parametrize("objective", ["bytes", "online", "total"])
def test_a_document_holds_all_choices_and_is_read_without_rates(objective):
    own = made(objective, WIDE, SLOW_POLYNOMIALS)

    read = read_plan(own.document)

    assert read == own and read.digest == own.digest


def test_an_unknown_objective_is_named():
    with pytest.raises(PlanError, match="unknown objective 'flows'; known: bytes, online, total"):
        plan(random_network(1)[0], objective="flows")


@pytest.mark.parametrize("unit", UNITS)
def test_a_slower_machine_is_never_predicted_to_be_faster(unit):
    own = made("bytes")
    slower = dataclasses.replace(own, rates=at_rates(**{unit: 3}))

    for inference in (0, 1):
        fast, slow = (x.predicted(inference=inference) for x in (own, slower))
        assert all(slow[phase] >= fast[phase] - 1e-12 for phase in fast)


def test_a_slower_link_is_never_predicted_to_be_faster():
    own = made("bytes", None)
    links = [None, Link(1000, 0.3), WIDE, Link(200, 40), Link(20, 40)]

    seconds = [own.predicted(link, 0) for link in links]

    for fast, slow in zip(seconds, seconds[1:], strict=False):
        assert all(slow[phase] > fast[phase] for phase in fast)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("protocol", ["pqjax", "pqjax-ot", "privquant", "hequant"])
def test_no_phase_takes_less_than_its_messages_or_either_partys_work(seed, protocol):
    own = plan(random_network(seed)[0], protocol, WIDE, rates=Rates(NOMINAL.seconds, 0.0))

    timed = forecast(own, inference=0)

    assert [line for line, _ in timed] == list(own.schedule())
    assert min(seconds for _, seconds in timed) >= 0
    for phase in ("install", "offline", "online"):
        bits, flows = own.cost(phase).sent, own.cost(phase).flows
        least = max(max(bits) / (WIDE.mbps * 1e6), flows * WIDE.rtt_ms / 2e3)
        assert own.predicted(inference=0)[phase] >= least - 1e-9


def streamed(held, rtt_ms):
    """Seconds of a small network's online phase whose OTs are made beside it, and of parts of it.

    As many OTs are held as `held` of all that are drawn; making them takes long.
    """
    preset = dataclasses.replace(find_preset("pqjax-ot"), tuning=Tuning(stream_above=0))
    slow = at_rates(b10=300, b11=300, b12=300, b13=300)
    own = plan(random_network(3)[0], preset, Link(mbps=1000, rtt_ms=rtt_ms), rates=slow)
    assert own.streamed
    drawn = sum(sum(step.cost.online.rots) for step in own.steps)
    with mock.patch.object(Plan, "stored", round(held * drawn)):
        timed = [each for each in forecast(own, inference=0) if each.line.phase == "online"]
    (beside,) = (each for each in timed if each.line.layer == STOCK_LAYER)
    making = max(Timeline(own.link, slow).computing(beside.line.cost))
    others = sum(each.seconds for each in timed) - beside.seconds
    return beside.seconds, making, others


def test_what_a_party_may_hold_bounds_the_waits_in_which_it_makes_ots():
    much, making, others = streamed(held=1, rtt_ms=400)
    little, *_ = streamed(held=0.01, rtt_ms=400)
    nothing, *_ = streamed(held=0, rtt_ms=400)

    assert 0 < making - others <= much < little < nothing <= making
    assert streamed(held=1, rtt_ms=0)[0] > 0.9 * making
