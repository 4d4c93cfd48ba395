"""No secret shows itself: not in a repr, of any object that a session holds."""

import collections
import types

import numpy as np
from networks import owned, random_network

import pqjax
from pqjax.engine.execute import prepare
from pqjax.engine.model import ServedModel
from pqjax.protocols.party import make_party, run_pair

PLAIN = (str, bytes, int, float, bool, type(None), np.ndarray, np.generic)


def held(thing, seen):
    """Every object of ours that can be reached from `thing`, and the arrays and bytes in them."""
    if id(thing) in seen:
        return
    seen[id(thing)] = thing
    if isinstance(thing, PLAIN):
        return
    if isinstance(thing, dict):
        parts = list(thing.values())
    elif isinstance(thing, (list, tuple, set, collections.deque)):
        parts = list(thing)
    elif isinstance(thing, types.FunctionType):
        parts = [cell.cell_contents for cell in thing.__closure__ or ()]
    elif type(thing).__module__.startswith("pqjax"):
        parts = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    else:
        return
    for part in parts:
        held(part, seen)


def marks(secret):
    """How a secret would look if it were printed."""
    if isinstance(secret, bytes) and len(secret) >= 16:
        return [repr(secret), secret.hex()]
    if isinstance(secret, np.ndarray) and secret.size >= 2 and secret.dtype.itemsize == 8:
        return (
            [str(int(secret.reshape(-1)[0]))] if abs(int(secret.reshape(-1)[0])) > 1 << 40 else []
        )
    return []


def reprs_and_marks(things):
    seen = {}
    held(things, seen)
    ours = [x for x in seen.values() if type(x).__module__.startswith("pqjax")]
    secrets = [mark for x in seen.values() for mark in marks(x)]
    # Whatever the array, numpy's way of printing one betrays it.
    return {type(x).__name__: repr(x) for x in ours}, [*secrets, "array("]


def test_no_repr_of_what_a_party_holds_shows_a_secret():
    graph, weights, x = random_network(1)

    for protocol in ("pqjax", "privquant"):
        plan = pqjax.plan(graph, protocol)
        model = ServedModel.of(plan, weights)

        def side(rank, plan=plan, model=model):
            def run(wire):
                party = make_party(wire, rank, plan.preset.source, tuning=plan.preset.tuning)
                return party, prepare(party, plan, owned(party, plan, model))

            return run

        for party, ready in run_pair(side(0), side(1)):
            shown, secrets = reprs_and_marks([party, ready])
            ends = (type(party.sender).__name__, type(party.receiver).__name__)

            assert {"Party", "Preparation", "Randomness", *ends} <= set(shown)
            assert len(secrets) > 1
            for kind, text in shown.items():
                assert not [mark for mark in secrets if mark in text], kind


def test_the_answer_is_not_in_the_repr_of_a_result():
    graph, weights, x = random_network(1)

    result = pqjax.run_local(pqjax.plan(graph), weights, x)

    assert "array" not in repr(result) and str(result.output.tolist()) not in repr(result)


def test_a_dataclass_that_prints_its_share_is_noticed():
    import dataclasses

    @dataclasses.dataclass
    class Careless:
        share: np.ndarray

    Careless.__module__ = "pqjax.careless"
    shown, secrets = reprs_and_marks(Careless(np.full(3, 2**50, np.uint64)))

    assert any(mark in shown["Careless"] for mark in secrets)
