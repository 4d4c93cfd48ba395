"""What a party sees of inferences of two inputs, or with two sets of weights, is the same but by chance.

Twice: of the frames themselves, which OTs and keys hide; and of what the party can decrypt of them
(`views`: OTs are ideal there, what is received is what was chosen), where any two bits of a view are
looked at together. Its own shares of every step are part of the view.
"""

import functools

import numpy as np
import pytest
from chance import Chances, add_alike
from runs import FEW, PRESETS, RUNS, honest, opened, seen
from scipy import stats
from tiny import tiny_graph, tiny_input, tiny_weights
from views import Direction, statistics

from pqjax.crypto.crhash import Tweaks
from pqjax.planner import plan
from pqjax.ring import Ring

INPUTS = 5, -4
WEIGHTS = (3, -4), (-2, 6)  # and biases
TESTS = 4 * len(PRESETS)
SERVER, CLIENT = 0, 1
EVERY = pytest.mark.parametrize("name", PRESETS)


@functools.cache
def ran(name, which, value):
    """Inferences of one input with one set of weights; no two have any randomness in common."""
    seed = 1 + 10 * list(PRESETS).index(name) + 3 * which + INPUTS.index(value)
    return honest(name, tiny_weights(*WEIGHTS[which]), value, RUNS[name], seed)


def frames_judged(one, other, rank):
    """Two runs as one party sees them: what it was sent, and its own shares."""
    chances = Chances("transcripts", TESTS)
    mine, theirs = one.sent(1 - rank), other.sent(1 - rank)
    assert mine.keys() == theirs.keys(), "the number of messages depends on a secret"
    for at, (where, sent) in mine.items():
        assert where == theirs[at][0], "the order of messages depends on a secret"
        if sent.size:
            add_alike(chances, where, sent, theirs[at][1], 8)
    for (owner, step), (share, bits) in one.shares.items():
        if owner == rank:
            add_alike(chances, f"share of {step}", share, other.shares[owner, step][0], bits)
    return chances


@pytest.mark.slow
@EVERY
def test_what_the_server_is_sent_depends_on_no_input(name):
    one, other = (ran(name, 0, value) for value in INPUTS)

    verdict = frames_judged(one, other, SERVER).told(
        f"server's frames, two inputs, {name}", RUNS[name]
    )

    assert not verdict.alarm, verdict


@pytest.mark.slow
@EVERY
def test_what_the_client_is_sent_depends_on_no_weights(name):
    one, other = (ran(name, which, INPUTS[0]) for which in (0, 1))

    verdict = frames_judged(one, other, CLIENT).told(
        f"client's frames, two models, {name}", RUNS[name]
    )

    assert not verdict.alarm, verdict


def opened_judged(one, other):
    """Two views: all means of bits, of two bits together, and of neighbouring inferences."""
    chances = Chances("transcripts", TESTS)
    a, b = statistics(one), statistics(other)
    assert a.means.shape == b.means.shape, "sizes or order of messages depend on a secret"
    scale = np.sqrt(2 / a.n)
    above = np.triu_indices(len(a.means), 1)
    pairs = {
        "bits": (a.means, b.means),
        "two bits": (a.products[above], b.products[above]),
        "neighbours": (a.neighbours, b.neighbours),
    }
    for what, (x, y) in pairs.items():
        chances.add(what, 2 * stats.norm.sf(np.abs(x - y) / scale))
    return chances


@pytest.mark.slow
@EVERY
def test_what_the_server_can_decrypt_depends_on_no_input(name):
    weights = tiny_weights(*WEIGHTS[0])
    views = [opened(name, weights, x, SERVER, RUNS[name], 20 + i) for i, x in enumerate(INPUTS)]

    verdict = opened_judged(*views).told(
        f"what the server decrypts, two inputs, {name}", RUNS[name]
    )

    assert not verdict.alarm, verdict


@pytest.mark.slow
@EVERY
def test_what_the_client_can_decrypt_depends_on_no_weights(name):
    views = [opened(name, tiny_weights(*w), INPUTS[0], CLIENT, RUNS[name], 30 + i)
             for i, w in enumerate(WEIGHTS)]  # fmt: skip

    verdict = opened_judged(*views).told(
        f"what the client decrypts, two models, {name}", RUNS[name]
    )

    assert not verdict.alarm, verdict


# The same with a mask less, which must be noticed.


def _unmasked(x, masks, own):
    """In the place of `with_masks`."""
    return Ring(own.sent_bits).reduce(
        x.astype(np.uint64) << np.uint64(own.sent_bits - own.sum_bits)
    )


def _bare(party, job, x, ready):
    """In the place of `ahead.ask`."""
    party.messenger.send_elements(x, Ring(job.bits))
    return ready.share


def _no_pads(self, x, out):
    out[...] = 0


def _both_chosen(self, call, index, blocks):
    return np.zeros((2, len(index), blocks, 2), np.uint64)


CONTROLS = {
    "encrypted without masks": ("rlwe", SERVER, "pqjax.linear.by_rlwe.with_masks", _unmasked),
    "sent without masks": ("ot", SERVER, "pqjax.linear.ahead.ask", _bare),
    "OTs have no pads, server": ("inline", SERVER, Tweaks, "permute", _no_pads),
    "OTs have no pads, client": ("ot", CLIENT, Tweaks, "permute", _no_pads),
    "OTs have no pads, client inline": ("inline", CLIENT, Tweaks, "permute", _no_pads),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
def test_frames_with_a_mask_less_raise_an_alarm(control, monkeypatch):
    name, rank, *change = CONTROLS[control]
    monkeypatch.setattr(*change)
    made = plan(tiny_graph(), PRESETS[name])
    kinds = [(0, x) for x in INPUTS] if rank == SERVER else [(w, INPUTS[0]) for w in (0, 1)]

    one, other = (
        seen(made, tiny_weights(*WEIGHTS[w]), tiny_input(x), FEW, 40 + i)
        for i, (w, x) in enumerate(kinds)
    )
    verdict = frames_judged(one, other, rank).told(f"control, {control}", FEW, control=True)

    assert verdict.alarm, verdict


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ot", "inline"])
def test_who_could_decrypt_both_messages_of_an_ot_would_see_the_weights(name, monkeypatch):
    monkeypatch.setattr(Direction, "pads", _both_chosen)

    views = [opened(name, tiny_weights(*w), INPUTS[0], CLIENT, FEW, 50 + i)
             for i, w in enumerate(WEIGHTS)]  # fmt: skip
    verdict = opened_judged(*views).told(f"control, both messages, {name}", FEW, control=True)

    assert verdict.alarm, verdict
