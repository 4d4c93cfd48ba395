"""Either party's share of every step of a network is uniform, whatever it is a share of.

Of every bit of every element over all inferences, and of the low and the high byte of all elements.
"""

import numpy as np
import pytest
from chance import Chances, add_uniform
from runs import FEW, PRESETS, RUNS, honest
from tiny import tiny_weights

from pqjax.crypto.prg import Randomness

TESTS = len(PRESETS) + 1


def judged(name, found):
    chances = Chances("uniform", TESTS)
    for (rank, step), (share, bits) in found.shares.items():
        if step != "image" or PRESETS[name].masked_input:  # else it is the client's as it is
            add_uniform(chances, f"rank {rank}, {step}", share, bits)
    return chances


def steps(found):
    return {step for _, step in found.shares}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_shares_of_every_step_are_uniform(name):
    found = honest(name, tiny_weights(), 5, RUNS[name])

    verdict = judged(name, found).told(f"shares of every step, {name}", RUNS[name])

    assert len(steps(found)) > 6
    assert not verdict.alarm, verdict


def test_shares_of_every_step_are_uniform_in_a_few_inferences():
    found = honest("ot", tiny_weights(), 5, FEW, seed=1)

    verdict = judged("ot", found).told("shares of every step, a few", FEW)

    assert not verdict.alarm, verdict


def _none(self, n, ring):
    return np.zeros(n, ring.dtype)


def _the_same(self, n, ring):
    return Randomness(bytes(16)).take(n * ring.dtype.itemsize).view(ring.dtype) & ring.mask


def _short(self, n, ring):
    return Randomness.take(self, n * ring.dtype.itemsize).view(ring.dtype) & (ring.mask >> 1)


@pytest.mark.slow
@pytest.mark.parametrize("masks", [_none, _the_same, _short])
def test_masks_that_are_none_or_the_same_or_too_short_raise_an_alarm(masks, monkeypatch):
    monkeypatch.setattr(Randomness, "elements", masks)
    found = honest("inline", tiny_weights(), 5, FEW)

    verdict = judged("inline", found).told(f"control, masks {masks.__name__}", FEW, control=True)

    assert verdict.alarm, verdict
