"""Which sets a plan gets: for each direction, by what is drawn of it over all inferences."""

import dataclasses

import numpy as np
import pytest
from networks import random_network, resnet32

import pqjax
from pqjax.cli import main
from pqjax.errors import PlanError
from pqjax.ot import SOURCES
from pqjax.ot.silent import EVERY, Silent
from pqjax.ot.silent_choice import SilentChoice
from pqjax.ot.silent_sets import SETS
from pqjax.ot.source import MOST_STORED, Need
from pqjax.ot.stocked import SoftSpoken
from pqjax.planner import find_preset, read_plan
from pqjax.planner.presets import OTS
from pqjax.wire.cost import NOTHING
from pqjax.wire.link import Link
from pqjax.wire.timeline import NOMINAL

AHEAD = MOST_STORED


def chosen(drawn, inferences=1, link=None, ahead=AHEAD):
    return SilentChoice().chosen(Need(drawn, ahead, inferences, link))


def session(source, drawn, inferences):
    """What so many fills cost one after the other, and what they leave."""
    cost, pool = NOTHING, (0, 0)
    for _ in range(inferences):
        made, pool = source.fill(pool, drawn)
        cost += made
    return cost, pool


@pytest.mark.parametrize("inferences", [1, 3, 10])
@pytest.mark.parametrize(
    "drawn", [(0, 0), (0, 9), (10**5, 10**5), (6 * 10**6, 6 * 10**5), (10**7, 0), (3 * 10**6,) * 2]
)
def test_no_other_sets_that_fit_send_less_over_the_session(drawn, inferences):
    made = chosen(drawn, inferences)

    fitting = [s for s in EVERY if s.stored(drawn, streamed=False) <= AHEAD]
    bits = {s: session(s, drawn, inferences)[0].bits for s in fitting}
    assert bits[made] == min(bits.values())
    left = {s: sum(session(s, drawn, inferences)[1]) for s in fitting if bits[s] == bits[made]}
    assert left[made] == min(left.values())  # and none that make less send as little


def test_a_direction_has_the_set_that_it_needs():
    assert chosen((10**4, 10**4)).noise == ("b10", "b10")
    assert chosen((6 * 10**6, 6 * 10**5)).noise == ("b12", "b10")
    assert chosen((6 * 10**5, 6 * 10**6)).noise == ("b10", "b12")
    assert chosen((6 * 10**6, 6 * 10**5), inferences=10).noise[0] == "b13"


def test_seconds_count_where_there_is_a_link():
    drawn = (6 * 10**6, 10**5)
    for link in (Link(1e-3, 0), Link(1e6, 10**6)):
        made = chosen(drawn, 4, link)

        cost, _ = session(made, drawn, 4)
        seconds = [link.seconds(*session(s, drawn, 4)[0].sent, 0) for s in EVERY]
        flows = [session(s, drawn, 4)[0].flows for s in EVERY]
        assert link.seconds(*cost.sent, 0) == min(seconds) if link.rtt_ms == 0 else (
            cost.flows == min(flows)
        )  # fmt: skip


def test_memory_comes_before_bits():
    large = (3 * 10**8, 8 * 10**7)

    assert chosen(large).noise == ("b12", "b12")
    assert chosen(large).stored(large, streamed=True) <= MOST_STORED
    drawn = (2 * 10**7, 2 * 10**6)
    assert Silent(("b13", "b11")).stored(drawn, streamed=False) > AHEAD
    assert chosen(drawn).stored(drawn, streamed=False) <= AHEAD  # so that all can be made ahead


def test_seconds_of_making_count_where_an_inference_waits_for_them():
    large = (3 * 10**8, 8 * 10**7)
    slow, fast = Link(1, 13), Link(10**6, 0.1)

    assert chosen(large, link=slow).noise == ("b12", "b12")  # as memory allows
    assert chosen(large, link=fast).noise == ("b10", "b10")  # time alone counts
    assert sorted(map(NOMINAL.of, SETS)) == [NOMINAL.of(name) for name in SETS]


@pytest.mark.parametrize("source", EVERY, ids=lambda source: source.name)
def test_no_more_is_stored_than_said(source):
    rng = np.random.default_rng(0)
    for most in (10**5, 10**6, 10**7):
        pool = (0, 0)
        for _ in range(20):
            wanted = tuple(int(n) for n in rng.integers(0, most, 2))
            _, left = source.fill(pool, wanted)
            held = sum(left) + sum(wanted)
            assert held <= source.stored((most, most), streamed=False)
            pool = left


def test_a_layers_share_is_what_a_long_session_comes_to():
    for source in EVERY:
        n = 10**10
        cost, _ = source.fill((0, 0), (n, n // 2))
        share = source.share((n, n // 2))
        assert share.flows == 0
        assert np.allclose(share.sent, [cost.sent[0], cost.sent[1]], rtol=0.01)
    assert Silent(("b13", "b13")).share((0, 1)).sent == (0, 1)


def test_a_plan_has_the_sets_that_it_needs_and_its_document_names_them():
    small = pqjax.plan(resnet32(3, blocks=1)[0])
    large = pqjax.plan(resnet32(3, blocks=3)[0], "pqjax-ot")

    assert small.preset.source.name != large.preset.source.name
    for made in (small, large):
        again = read_plan(made.document)
        assert again == made and again.preset.source is SOURCES[made.preset.source.name]
        assert made.preset.source.name.encode() in made.document
        assert again.preset.choices == made.preset.choices
    assert "silent" not in SOURCES


def test_softspoken_can_be_asked_for_and_is_what_it_was():
    graph, weights, x = random_network(2)
    made = pqjax.plan(graph, ot="softspoken")

    result = pqjax.run_local(made, weights, x)

    assert made.preset.source == SoftSpoken(4) and b'"softspoken4"' in made.document
    by_hand = dataclasses.replace(find_preset("pqjax"), source=SoftSpoken(4))
    assert (
        made == pqjax.plan(graph, by_hand) == pqjax.plan(graph, find_preset("pqjax", "softspoken"))
    )
    np.testing.assert_array_equal(result.output, pqjax.reference(graph, weights, x))
    assert made.differences(result.trace, 1) == []
    assert pqjax.plan(graph, by_hand, ot="silent") == pqjax.plan(graph)


@pytest.mark.parametrize("ot", ["iknp", "", "SoftSpoken", "silent-b10-b10"])
def test_sources_that_cannot_be_asked_for_are_refused(ot):
    with pytest.raises(PlanError, match="known: silent, softspoken"):
        find_preset("pqjax", ot)


@pytest.mark.parametrize("protocol", ["sirnn", "privquant", "cryptflow2"])
def test_published_presets_keep_their_ots(protocol):
    for ot in OTS:
        with pytest.raises(PlanError, match="has no store of OTs"):
            pqjax.plan(random_network(0)[0], protocol, ot=ot)


def test_the_command_takes_a_source(tmp_path, capsys):
    path = tmp_path / "graph.json"
    path.write_text(random_network(1)[0].to_json())

    assert main(["plan", str(path), "--ot", "softspoken"]) == 0
    assert "by AES;" in capsys.readouterr().out
    assert main(["plan", str(path)]) == 0
    assert "LPN" in capsys.readouterr().out
    assert main(["plan", str(path), "--ot", "silent", "--protocol", "sirnn"]) == 1
    assert "has no store of OTs" in capsys.readouterr().err
