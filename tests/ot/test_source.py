"""What every source of OTs keeps to; and a source of another kind, to show that one file makes one.

`Rounds` makes OTs by the round, as silent OT does: a round makes so many, takes two flows, and leaves
over what was not asked for; some of it seeds the next round and is never handed out.
"""

import dataclasses
import json

import numpy as np
import pytest
from hostile import canonical
from networks import random_network
from pairs import stored

import pqjax
from pqjax.engine.execute import Own, infer, prepare
from pqjax.engine.model import ServedModel
from pqjax.errors import PlanError
from pqjax.ot import SOURCES
from pqjax.ot.correlations import cot_cost, cot_receive, cot_send
from pqjax.ot.setup import extend_both
from pqjax.ot.silent import Silent
from pqjax.ot.silent_sets import SETS
from pqjax.ot.source import Pool
from pqjax.ot.stocked import SoftSpoken, SoftSpokenReceiver, SoftSpokenSender
from pqjax.planner import find_preset, read_plan
from pqjax.protocols.compare import carry_out_cost, less_than
from pqjax.protocols.party import make_party, run_pair
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, Cost, beside, message

EVERY = pytest.mark.parametrize("name", SOURCES)
ROUND, SEEDS, SALT_BITS = 1000, 100, 128


@dataclasses.dataclass(frozen=True)
class Rounds(SoftSpoken):
    """A salt from the sender, then SoftSpoken for ROUND OTs, of which SEEDS stay for the next round."""

    @property
    def name(self):
        return f"rounds{self.k}"

    def set_up(self, messenger, randomness):
        (delta, hashes, sends), (others, receives) = extend_both(messenger, randomness, self.k)
        return RoundsSender(delta, hashes.rows, sends), RoundsReceiver(others.rows, receives)

    def fill(self, pool, wanted) -> tuple[Cost, Pool]:
        costs, left = [NOTHING, NOTHING], list(pool)
        for sender, n in enumerate(wanted):
            while n and left[sender] < n + SEEDS:
                costs[sender] += message(sender, SALT_BITS)
                costs[sender] += message(1 - sender, (128 // self.k - 1) * ROUND)
                left[sender] += ROUND
            left[sender] -= n
        return beside(costs), (left[0], left[1])


class RoundsSender(SoftSpokenSender):
    def order(self, lane, tuning, n):
        for _ in range(n // ROUND):
            lane.send(np.zeros(SALT_BITS // 8, np.uint8), SALT_BITS)
            super().order(lane, tuning, ROUND)
            self.wait()


class RoundsReceiver(SoftSpokenReceiver):
    def order(self, lane, tuning, n):
        for _ in range(n // ROUND):
            lane.receive(SALT_BITS)
            super().order(lane, tuning, ROUND)
            self.wait()


ROUNDS = Rounds(4)
N, RING = 150, Ring(7)


def both(source, run):
    """run(party) at both sides of one session."""
    return run_pair(
        lambda wire: run(make_party(wire, 0, source)), lambda wire: run(make_party(wire, 1, source))
    )


def metered(party, work):
    """What work(party) gives, what this side sent and received by that, and its clock before."""
    clock = party.messenger.clock
    with party.messenger.layer("online", "test"):
        result = work(party)
    entry = party.messenger.trace.entries[-1]
    return result, (entry.sent_bits, entry.received_bits), clock, entry.clock_after


# Every set in either direction; the other pairs take long and have nothing of their own.
PAIRS = {f"silent-{a}-{b}" for a, b in zip(SETS, reversed(SETS), strict=True)}


def _named(source):
    slow = isinstance(source, Silent) and source.name not in PAIRS
    return pytest.param(source, id=source.name, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize("source", [_named(source) for source in (*SOURCES.values(), ROUNDS)])
def test_fills_of_any_source_cost_what_was_predicted_and_leave_what_was_predicted(source):
    a = np.random.default_rng(1).integers(0, 1 << 9, N).astype(np.uint16)
    b = np.random.default_rng(2).integers(0, 1 << 9, N).astype(np.uint16)

    def compare(party):
        return less_than(party, b if party.rank else a, 9)

    def correlate(party):
        if party.rank == 1:
            return cot_send(party, RING.reduce(a), RING)
        return cot_receive(party, (b & 1).astype(np.uint8), RING)

    costs = {compare: carry_out_cost(source, N, 9), correlate: cot_cost(source, 1, N, RING)}
    order = [compare, correlate, compare, correlate, correlate, compare, correlate]

    def run(party):
        done = []
        for work in order:
            filled = metered(party, lambda p, w=work: p.fill(costs[w].rots))
            pool, left = party.pool, stored(party)
            done.append((filled, pool, left, metered(party, work)))
            assert stored(party) == (party.pool[party.rank], party.pool[1 - party.rank])
        return done

    mine, theirs = both(source, run)

    pool, pools = (0, 0), set()
    for work, one, two in zip(order, mine, theirs, strict=True):
        made, pool = source.fill(pool, costs[work].rots)
        pools.add(pool)
        for predicted, (_, sent0, *clocks0), (_, sent1, *clocks1) in (
            (made, one[0], two[0]), (costs[work], one[3], two[3]),
        ):  # fmt: skip
            assert sent0 == sent1[::-1] == predicted.sent
            assert predicted.clocks((clocks0[0], clocks1[0])) == (clocks0[1], clocks1[1])
        assert one[1] == two[1] == pool
        y0, y1 = one[3][0], two[3][0]
        if work is compare:
            np.testing.assert_array_equal(y0 ^ y1, a < b)
        else:
            np.testing.assert_array_equal(RING.add(y0, y1), RING.reduce(a * (b & 1)))
    if isinstance(source, (Rounds, Silent)):
        seeds = [s.seeds for s in source.sets] if isinstance(source, Silent) else [SEEDS] * 2
        assert len(pools) > 4  # leftovers that change from fill to fill
        assert pool[0] >= seeds[0] and pool[1] >= seeds[1]
    else:
        assert pools == {(0, 0)}


def test_a_round_is_made_only_where_the_pool_lacks_something():
    first, left = ROUNDS.fill((0, 0), (1200, 0))
    second, rest = ROUNDS.fill(left, (600, 0))
    third, last = ROUNDS.fill(rest, (150, 1))

    assert (left, rest, last) == ((800, 0), (200, 0), (1050, 999))
    assert (first.flows, second, third.flows) == (4, NOTHING, 2)


def test_a_network_runs_on_another_source_and_costs_what_was_predicted():
    graph, weights, x = random_network(1)
    preset = dataclasses.replace(find_preset("pqjax"), source=ROUNDS)
    made = pqjax.plan(graph, preset)

    result = pqjax.run_local(made, weights, x)

    np.testing.assert_array_equal(result.output, pqjax.reference(graph, weights, x))
    assert made.differences(result.trace, 1) == []


def test_what_an_inference_leaves_over_is_used_by_the_next():
    graph, weights, x = random_network(1)
    made = pqjax.plan(graph, dataclasses.replace(find_preset("pqjax-ot"), source=ROUNDS))
    model = ServedModel.of(made, weights)

    def run(party):
        mine = Own() if party.rank else model.own
        ready = [prepare(party, made, mine) for _ in range(6)]
        answers = [infer(party, made, mine, each, x if party.rank else None) for each in ready]
        filled = [e for e in party.messenger.trace.entries if e.layer == "random ots"]
        return answers, [(e.sent_bits, e.received_bits) for e in filled], party.pool

    mine, theirs = both(ROUNDS, run)

    pool, bits = (0, 0), []
    for _ in range(6):
        cost, pool = ROUNDS.fill(pool, made.rots)
        bits.append(cost.sent)
    assert mine[1] == bits and len(set(bits)) > 1
    assert mine[2] == theirs[2] == pool
    for y in theirs[0]:
        np.testing.assert_array_equal(y, pqjax.reference(graph, weights, x))


@pytest.mark.parametrize("name", ["iknp", "softspoken3", "softspoken16", "IKNP+KKOT", "prayer"])
def test_an_unknown_source_is_refused_and_the_known_ones_named(name):
    tree = json.loads(pqjax.plan(random_network(0)[0]).document)

    with pytest.raises(PlanError) as error:
        read_plan(canonical({**tree, "source": name}))

    assert f"unknown source of OTs {name!r}; " in str(error.value)
    assert f"which knows {', '.join(SOURCES)}, and" in str(error.value)


@EVERY
def test_a_source_is_found_by_the_name_that_a_document_gives_it(name):
    source = SOURCES[name]

    assert SOURCES[json.loads(json.dumps(source.name))] is source
    assert dataclasses.is_dataclass(source)
    again = dataclasses.replace(source)
    assert again == source and hash(again) == hash(source)


@EVERY
def test_a_request_is_one_message_of_the_receivers(name):
    source = SOURCES[name]

    for sender in (0, 1):
        for cost in (source.request(sender, 9), *(source.pick(sender, 9, m) for m in (1, 2, 3, 4))):
            assert cost.flows == 1 and cost.sent[sender] == 0 and cost.rots[1 - sender] == 0


@pytest.mark.parametrize(
    "source", [SoftSpoken(2), SoftSpoken(8), Silent(("b10", "b10"))], ids=lambda s: s.name
)
def test_filling_works_for_every_ot_that_it_makes(source):
    wanted = (700_000, 300)

    cost, left = source.fill((0, 0), wanted)

    made = sum(wanted) + sum(left)
    if isinstance(source, Silent):
        assert cost.work == {"b10": (made, made)}
    else:
        blocks = (made << source.k) // source.k
        assert cost.work == {"rows": (made, made), "streams": (blocks, blocks)}
