"""Silent OT between two parties: costs and leftovers over a session, and what the other side sees."""

import collections
import dataclasses
import threading

import numpy as np
import pytest
from networks import random_network
from pairs import stored
from views import LIMIT, neighbours, signed_mean

import pqjax
from pqjax.crypto import crhash
from pqjax.crypto.prg import Randomness
from pqjax.engine.execute import Own, infer, prepare
from pqjax.engine.model import ServedModel
from pqjax.errors import InputError, OutOfCorrelations
from pqjax.ot import SOURCES, setup, silent_sets
from pqjax.ot import silent as silent_module
from pqjax.ot.silent import FIRST, Silent, SilentReceiver, SilentSender
from pqjax.ot.silent_code import Code
from pqjax.ot.silent_sets import SETS, NoiseSet
from pqjax.ot.stocked import Stock
from pqjax.planner import find_preset, read_plan
from pqjax.planner.plan import STOCK_LAYER
from pqjax.protocols.party import make_party, run_pair
from pqjax.wire.cost import NOTHING
from pqjax.wire.messenger import Messenger

TINY = {"b10": NoiseSet(40, 10, 8), "b11": NoiseSet(44, 11, 9)}
SOURCE = Silent(("b11", "b11"))


@pytest.fixture
def tiny(monkeypatch):
    """Sets of thousands of OTs in place of millions, in groups of a few trees."""
    for name, noise in TINY.items():
        monkeypatch.setitem(SETS, name, noise)
    monkeypatch.setattr(silent_sets, "GROUP_LEAVES", 1 << 11)


def both(source, run, randomness=(None, None)):
    """run(party) at both sides of one session."""
    return run_pair(
        lambda wire: run(make_party(wire, 0, source, randomness[0])),
        lambda wire: run(make_party(wire, 1, source, randomness[1])),
    )


def drawn(party, n):
    """All that n OTs with rank 0 as sender are at this party."""
    end = party.sender if party.rank == 0 else party.receiver
    return end.stock.draw(n)


@pytest.mark.parametrize("name", ["b9", "b14", "", "B11", "10485760"])
def test_no_other_set_can_be_asked_for(name):
    for pair in ((name, "b10"), ("b10", name)):
        with pytest.raises(InputError, match="b10, b11, b12, b13"):
            Silent(pair)
        assert f"silent-{pair[0]}-{pair[1]}" not in SOURCES


@pytest.mark.parametrize("names", [(), ("b10",), ("b10",) * 3])
def test_a_source_has_a_set_for_each_direction(names):
    with pytest.raises(InputError, match="b10, b11, b12, b13"):
        Silent(names)


@pytest.mark.parametrize("name", SETS)
def test_a_round_of_a_set_sends_few_bits_an_ot(name):
    noise, source = SETS[name], SOURCES[f"silent-{name}-b10"]
    pool = (SETS[FIRST].made, 0)

    cost, left = source.fill(pool, (pool[0], 0))

    assert cost.flows == 1 and cost.sent == (128 * noise.trees * noise.depth, 0)
    assert left == (noise.gain, 0)
    assert cost.bits / noise.gain < {"b10": 1.4, "b11": 0.9, "b12": 0.5, "b13": 0.35}[name]


def test_a_small_network_is_set_up_in_less_than_700_kilobytes():
    source = Silent(("b13", "b13"))

    cost, _ = source.fill((0, 0), (10**5, 10**5))

    assert (cost + source.set_up_cost()).bits < 8 * 700_000


def test_a_direction_that_draws_nothing_costs_nothing():
    cost, left = SOURCE.fill((0, 0), (0, 5))

    assert left[0] == 0 and cost == SOURCE.fill((0, 0), (0, 1))[0]
    assert SOURCE.fill((7, 9), (0, 0)) == (NOTHING, (7, 9))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_rounds_of_the_real_sets_correlate_and_cost_what_was_predicted(name):
    source = SOURCES[f"silent-b10-{name}"]
    n = SETS[FIRST].made + 1  # of the first round and of one of its own

    def run(party):
        before = party.messenger.trace
        with party.messenger.layer("offline", "test"):
            party.fill((0, n))
        entry, end = before.entries[-1], party.sender if party.rank == 1 else party.receiver
        rows, bits = end.stock.draw(n)
        return (entry.sent_bits, entry.received_bits), rows, bits, party.sender, party.pool

    mine, theirs = both(source, run)

    cost, pool = source.fill((0, 0), (0, n))
    assert mine[0] == cost.sent == theirs[0][::-1] and mine[4] == theirs[4] == pool
    np.testing.assert_array_equal(
        mine[1] ^ theirs[1], mine[2][:, None].astype(np.uint64) * theirs[3]._delta
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_ten_inferences_of_a_session_cost_what_was_predicted(tiny, streamed):
    graph, weights, x = random_network(1)
    preset = dataclasses.replace(find_preset("pqjax-ot"), source=SOURCE)
    if streamed:
        tuning = dataclasses.replace(preset.tuning, stream_above=0)
        preset = dataclasses.replace(preset, tuning=tuning)
    made = read_plan(pqjax.plan(graph, preset).document)
    model = ServedModel.of(made, weights)

    def run(party):
        mine, answers, entries = Own() if party.rank else model.own, [], []
        for _ in range(10):
            start = len(party.messenger.trace.entries)
            ready = prepare(party, made, mine)
            answers.append(infer(party, made, mine, ready, x if party.rank else None))
            new = party.messenger.trace.entries[start:]
            entries.append([(e.phase, e.layer, e.sent_bits, e.received_bits) for e in new])
        return answers, entries, party.pool, stored(party)

    mine, theirs = both(SOURCE, run)

    filled = []
    for i in range(10):
        lines = [
            (x.phase, x.layer, *x.cost.sent) for x in made.schedule(i)
            if x.layer != "begin" and x.phase != "setup"
        ]  # fmt: skip
        assert mine[1][i] == lines, f"inference {i}"
        assert [(*e[:2], *e[:1:-1]) for e in theirs[1][i]] == lines, f"inference {i}"
        filled.append(next(cost[2:] for cost in lines if cost[1] == STOCK_LAYER))
        np.testing.assert_array_equal(theirs[0][i], pqjax.reference(graph, weights, x))
    assert mine[2] == theirs[2] == mine[3] == theirs[3][::-1]
    assert made.streamed == streamed and (streamed or len(set(filled)) > 2)


def test_a_network_runs_on_a_real_set():
    graph, weights, x = random_network(3)
    preset = dataclasses.replace(find_preset("pqjax-ot"), source=SOURCES["silent-b10-b10"])
    made = pqjax.plan(graph, preset)

    result = pqjax.run_local(made, weights, x)

    np.testing.assert_array_equal(result.output, pqjax.reference(graph, weights, x))
    assert made.differences(result.trace, 1) == []


@pytest.mark.parametrize("half", ["RoundSender", "RoundReceiver"])
def test_a_fault_in_the_middle_of_a_round_leaves_nothing_of_it_in_store(tiny, monkeypatch, half):
    parties = {}

    class Faulty(getattr(silent_module, half)):
        grown = 0

        def grow(self, *args):
            self.grown += 1
            if self.grown == 3:
                raise MemoryError("in the middle")
            return super().grow(*args)

    def run(party):
        parties[party.rank] = party
        party.fill((100, 0))
        monkeypatch.setattr(silent_module, half, Faulty)
        party.fill((TINY["b10"].made, 0))

    with pytest.raises(MemoryError, match="in the middle"):
        both(SOURCE, run)

    ends = {"RoundSender": parties[0].sender, "RoundReceiver": parties[1].receiver}
    left = ends[half].stock.left
    assert left == TINY["b10"].made - TINY["b11"].seeds  # nothing new, and the seeds are gone
    with pytest.raises(OutOfCorrelations):
        ends[half].stock.draw(left + 1)


# What the other side sees, and what is used once.


class Seen:
    """Of one party in a session: secrets by kind, frames sent, rounds' seeds and its choices."""

    def __init__(self):
        self.secrets, self.frames = collections.defaultdict(list), []
        self.choices = np.zeros(0, np.uint8)


def watched(patch, randomness=(None, None), source=SOURCE):
    """A session of three rounds each way; what was seen of both parties."""
    seen = Seen(), Seen()
    here = lambda: seen[int(threading.current_thread().name[-1])]
    expand, send = silent_module.RoundSender.grow, Messenger.send

    def noted_grow(self, group, roots):
        rows, blocks = expand(self, group, roots)
        here().secrets["root"] += [root.tobytes() for root in roots]
        sums = blocks ^ self._masks[group]
        here().secrets["sum"] += [one.tobytes() for one in sums.reshape(-1, 2)]
        here().secrets["seed"] += [one.tobytes() for one in self._masks[group].reshape(-1, 2)]
        return rows, blocks

    def noted_send(self, payload, *rest, **options):
        here().frames.append(np.asarray(payload).tobytes())
        return send(self, payload, *rest, **options)

    patch.setattr(silent_module.RoundSender, "grow", noted_grow)
    patch.setattr(Messenger, "send", noted_send)
    n = TINY["b10"].made + TINY["b11"].gain

    def run(party):
        party.fill((n, n))
        me = seen[party.rank]
        assert isinstance(party.sender, SilentSender) and isinstance(party.receiver, SilentReceiver)
        me.secrets["delta"].append(party.sender._delta.tobytes())
        _, me.choices = party.receiver.stock.draw(party.receiver.stock.left)

    both(source, run, randomness)
    return seen


def complaints(sessions):
    """What is wrong with what was seen of several sessions."""
    found = set()
    parties = [party for pair in sessions for party in pair]
    for kind in ("root", "seed", "delta"):
        made = [secret for party in parties for secret in party.secrets[kind]]
        if len(set(made)) < len(made):
            found.add(f"a {kind} occurs twice")
    for party in parties:
        sent = b"".join(party.frames)
        for kind, secrets in party.secrets.items():
            if any(secret in sent for secret in secrets):
                found.add(f"a {kind} was sent")
    own = TINY["b11"].made
    for party in parties:
        rounds = party.choices[-2 * own :].reshape(2, own)
        columns = np.concatenate([rounds, rounds[:1] ^ rounds[1:]])
        deviations = np.abs([signed_mean(columns), neighbours(columns)]) * np.sqrt(own)
        if deviations[:, :2].max() > LIMIT:
            found.add("choices are uneven")
        if deviations[:, 2].max() > LIMIT:
            found.add("two rounds' choices are alike")
    return found


def test_secrets_are_fresh_and_masked_and_choices_even(tiny):
    sessions = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            sessions.append(watched(patch))

    assert len(sessions[0][0].choices) == TINY["b10"].made + 2 * TINY["b11"].gain
    assert complaints(sessions) == set()


def test_no_tweak_of_a_session_is_used_twice(tiny, monkeypatch):
    spans, hash_blocks = collections.defaultdict(list), crhash.hash_blocks

    def noted(x, tweaks, out, at=None, offset=None):
        rank = int(threading.current_thread().name[-1])
        blocks = out.shape[0] * out.shape[1]
        spans[rank, tweaks.domain, offset is None].append((tweaks.first, blocks))
        hash_blocks(x, tweaks, out, at, offset)

    monkeypatch.setattr(crhash, "hash_blocks", noted)
    n = TINY["b11"].gain

    def run(party):
        for _ in range(4):
            party.fill((n, n))
            for end in (party.sender, party.receiver):
                for part, blocks in ((n // 2, 1), (n // 4, 3)):
                    end.pads(end.stock.draw(part)[0], blocks)

    both(SOURCE, run)

    directions = {domain for _, domain, alone in spans if not alone}
    assert len(directions) == 2
    for (rank, domain, alone), used in spans.items():
        assert domain not in directions or sum(blocks for _, blocks in used) > 4 * n
        for (first, blocks), (following, _) in zip(used, used[1:], strict=False):
            assert first + blocks <= following, (rank, domain)
        if not alone:  # the other messages of the same OTs
            assert set(used) <= set(spans[rank, domain, True])


def _noise_alone(patch):
    """The code spreads nothing: a choice is 1 where a tree's path ends, and the noise lies open."""
    bare = lambda self, rows: (rows, (rows[:, 0] & np.uint64(1)).astype(np.uint8))
    patch.setattr(Code, "spread", bare)


def _seeds_again(patch):
    """Rounds draw what was drawn before."""
    draw = Stock.draw

    def same(self, n):
        if not hasattr(self, "old") or len(self.old[0]) != n:
            self.old = draw(self, n)
        else:
            draw(self, n)
        return self.old

    patch.setattr(Stock, "draw", same)


def _sums_in_the_clear(patch):
    grow = silent_module.RoundSender.grow

    def bare(self, group, roots):
        rows, blocks = grow(self, group, roots)
        return rows, blocks ^ self._masks[group]

    patch.setattr(silent_module.RoundSender, "grow", bare)


def _delta_again(patch):
    """Delta follows from nothing but the rank."""
    leaves = setup._sender_leaves

    def same(messenger, randomness, *rest):
        return leaves(messenger, Randomness(bytes([messenger.rank] * 16)), *rest)

    patch.setattr(setup, "_sender_leaves", same)


@pytest.mark.parametrize(
    "spoil,complaint",
    [
        (_noise_alone, "choices are uneven"),
        (_seeds_again, "two rounds' choices are alike"),
        (_seeds_again, "a seed occurs twice"),
        (_sums_in_the_clear, "a root was sent"),
        (_delta_again, "a delta occurs twice"),
    ],
)
def test_what_is_spoilt_is_noticed(tiny, spoil, complaint):
    sessions = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            spoil(patch)
            sessions.append(watched(patch))

    assert complaint in complaints(sessions)
