"""Whatever `validate` accepts runs as `reference` says and costs what was predicted, or is refused.

Graphs come from a generator that knows no manners (`impolite`). Of every one: the reference equals a
slow interpreter of the rings on all tensors; every preset refuses it with a typed error or makes a
graph of the same answer, in which every fact about a sign is true; and both parties' run gives that
answer, bit for bit, in the bits and flows predicted. Many graphs run over one pair of parties, because
setting up oblivious transfer takes longer than they do.
"""

import collections
import contextlib
import re

import jax
import numpy as np
import pytest
from impolite import strange_graph
from interpreter import every_value_slowly
from networks import ENCRYPTED, EXACT
from pairs import stored
from pitfalls import PITFALLS

from pqjax.engine.execute import Own, infer, prepare
from pqjax.engine.model import ServedModel
from pqjax.errors import GraphError, PlanError
from pqjax.graph import every_value, validate
from pqjax.he import Version
from pqjax.ot.stocked import Stocked
from pqjax.planner import plan
from pqjax.planner.plan import check_weights
from pqjax.protocols.party import make_party, run_pair

RUNS = {**EXACT, "encrypted": ENCRYPTED}
STOCKED = [name for name, preset in RUNS.items() if isinstance(preset.source, Stocked)]
INLINE = [name for name in RUNS if name not in STOCKED]
VERSION = Version(bytes(16), bytes(range(16)))


def equal(x, y):
    return np.ravel(x).tolist() == np.ravel(y).tolist()


def lies_in(value, low, high):
    return low <= min(np.ravel(value)) and max(np.ravel(value)) <= high


def check_reference(graph, weights, inputs):
    """The reference, the slow twin and the intervals agree; the twin's tensors."""
    known = validate(graph, weights)
    twins = [every_value_slowly(graph, weights, x) for x in inputs]
    with jax.disable_jit():
        fast = every_value(graph, weights, np.stack(inputs))
    for i, values in enumerate(twins):
        for name, value in values.items():
            assert equal(fast[name][i], value), f"reference differs at {name}"
            assert lies_in(value, *known[name]), f"{name} is not in {known[name]}"
    return twins


def plans(graph, weights, inputs, twins, counts, protocols):
    """A plan of every preset that takes the graph, its lowered graph checked."""
    made = {}
    for protocol in protocols:
        try:
            each = plan(graph, RUNS[protocol])
            check_weights(each, weights)
        except (GraphError, PlanError):
            counts[f"{protocol} refused"] += 1
            continue
        for x, values in zip(inputs, twins, strict=True):
            lowered = every_value_slowly(each.graph, weights, x)
            wanted = values[graph.output.name]
            assert equal(lowered[each.graph.output.name], wanted), f"{protocol}: another answer"
            for node in each.graph:
                held = lies_in(lowered[node.name], node.out.low, node.out.high)
                assert held, f"{protocol}: {node.name} ({node.kind}) is not in its format"
        made[protocol] = each
    return made


def test_what_validate_accepts_every_preset_plans_or_names_a_limit_of_its_own():
    """A refusal names a node that the user wrote and a limit of the protocol, and `pqjax` has none."""
    limits = (
        r"(more than the uniform ring's 37|may overflow its .* uniform ring|worst-case width is)"
    )
    counts = collections.Counter()
    for seed in (*range(299), 2478):  # the last has a worst-case width that no ring has
        graph, weights, *_ = strange_graph(seed)
        for protocol in ("pqjax", "privquant", "sirnn", "cryptflow2"):
            try:
                check_weights(plan(graph, protocol), weights)
                counts[protocol] += 1
            except GraphError as error:
                name, _, why = str(error).partition(" ")
                assert name in graph and re.search(limits, why), f"{seed}, {protocol}: {error}"

    assert counts["pqjax"] == 300 > counts["privquant"] >= 298
    assert counts["cryptflow2"] > 200


def run_all(jobs, deadline_s=120.0):
    """Runs (plan, weights, x), plans of one source, one after the other between two parties.

    Of every run the answer, the entries, the clock before and the random OTs left over after it.
    """
    [source] = {made.preset.source for made, _, _ in jobs}
    models = [ServedModel.of_version(made, weights, VERSION) for made, weights, _ in jobs]

    def side(rank):
        def run(wire):
            party, found = make_party(wire, rank, source), []
            for (made, _, x), model in zip(jobs, models, strict=True):
                at, clock = len(party.messenger.trace.entries), party.messenger.clock
                mine = model.own
                if rank:
                    hints = model.hints
                    mine = Own(hints.by_layer(made), hints.seed) if hints else Own()
                ready = prepare(party, made, mine)
                y = infer(party, made, mine, ready, x if rank else None)
                found.append((y, party.messenger.trace.entries[at:], clock, stored(party)))
            return found

        return run

    return run_pair(side(0), side(1), deadline_s)


def check_run(made, pool, server, client):
    """One of `run_all`'s against the plan, with so many OTs in store before it; how many are then."""
    lines, left = made._lines(pool)
    lines = [line for line in lines if line.layer != "begin"]  # nobody names a phase
    for rank, (_, entries, _, _) in enumerate((server, client)):
        check_books(lines, rank, entries, (server[2], client[2]))
    assert server[3] == client[3][::-1] == left, "other random OTs are left over"
    return left


def check_books(lines, rank, entries, clocks):
    """Bits and flows of a run, layer by layer, against its schedule."""
    assert len(entries) == len(lines)
    for line, entry in zip(lines, entries, strict=True):
        clocks = line.cost.clocks(clocks)
        assert (entry.phase, entry.layer) == (line.phase, line.layer)
        assert (entry.sent_bits, entry.received_bits) == (
            line.cost.sent[rank],
            line.cost.sent[1 - rank],
        ), f"bits of {line.phase} {line.layer}"
        assert entry.clock_after == clocks[rank], f"flows of {line.phase} {line.layer}"


@contextlib.contextmanager
def named(seed, graph, protocol=""):
    """A failure inside says which graph it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {seed} {protocol}: {graph.to_json()}")
        raise


def differential(seeds, protocols, **of_graph):
    """Checks all graphs of these seeds under presets of one source; counts of what became of them."""
    counts, jobs, meant = collections.Counter(), [], []
    for seed in seeds:
        graph, weights, x, corners = strange_graph(seed, **of_graph)
        inputs = [x, *corners]
        counts["graphs"] += 1
        with named(seed, graph):
            twins = check_reference(graph, weights, inputs)
            found = plans(graph, weights, inputs, twins, counts, protocols)
        for protocol, made in found.items():
            jobs.append((made, weights, x))
            meant.append((seed, graph, protocol, twins[0][graph.output.name]))
    (theirs, mine), pool = run_all(jobs), (0, 0)
    for job, what, server, client in zip(jobs, meant, theirs, mine, strict=True):
        seed, graph, protocol, wanted = what
        with named(seed, graph, protocol):
            assert equal(client[0], wanted), "the answer is not the reference's"
            pool = check_run(job[0], pool, server, client)
        counts[f"{protocol} equal"] += 1
    return counts


FEW = (1, 2, 3, 4, 5, 8, 12, 37, 63)  # every width is compiled


@pytest.mark.parametrize("protocols", [INLINE, STOCKED], ids=["inline", "stocked"])
def test_whatever_is_accepted_runs_as_the_reference_says(protocols):
    counts = differential(range(12), protocols, nodes=5, widths=FEW)

    for protocol in protocols:
        assert counts[f"{protocol} equal"] >= 4, counts


@pytest.mark.slow
@pytest.mark.parametrize("protocols", [INLINE, STOCKED], ids=["inline", "stocked"])
@pytest.mark.parametrize("first", range(1000, 3000, 50))
def test_thousands_more_run_as_the_reference_says(first, protocols):
    counts = differential(range(first, first + 50), protocols)

    assert all(counts[f"{protocol} equal"] for protocol in protocols)


@pytest.mark.parametrize("protocols", [INLINE, STOCKED], ids=["inline", "stocked"])
def test_pitfalls_run_as_the_reference_says(protocols):
    counts, jobs, wanted = collections.Counter(), [], []
    for graph, weights, x in PITFALLS.values():
        twins = check_reference(graph, weights, [x])
        for made in plans(graph, weights, [x], twins, counts, protocols).values():
            jobs.append((made, weights, x))
            wanted.append(twins[0][graph.output.name])

    (theirs, mine), pool = run_all(jobs), (0, 0)

    too_wide = {"cryptflow2 refused", "encrypted refused"}
    assert set(counts) <= too_wide, counts
    for job, answer, server, client in zip(jobs, wanted, theirs, mine, strict=True):
        assert equal(client[0], answer), job[0].source.to_json()
        pool = check_run(job[0], pool, server, client)
