"""Sizes of messages change frames, and nothing else."""

import dataclasses

import numpy as np
import pytest
from cases import CASES
from pairs import KINDS, run_dealt
from wire_trace import SEED, traced

from pqjax.errors import InputError
from pqjax.ot.correlations import rows_receive, rows_send
from pqjax.ot.source import keys_work
from pqjax.ot.stocked import SoftSpoken
from pqjax.ot.tuning import Tuning
from pqjax.protocols.party import make_party, run_pair
from pqjax.schema import read
from pqjax.wire.cost import total

OF_PICKS = ("less than", "less and equal", "known wrap", "truncate, signed")
OF_KEYS = ("mux", "b2a", "extend, nonnegative, element", "clamp to -4")
SMALL = Tuning(chunk_ots=256, product_elements=256, tile_elements=256)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(OF_PICKS + OF_KEYS)])
def test_small_messages_cost_as_many_bits_and_give_the_right_result(name, kind):
    case, source = CASES[name], KINDS[kind]
    (inputs, usual), cost = traced(case, source), case.cost(source, 300)

    run = run_dealt(case.run, *inputs, source, cost, SEED, SMALL)  # holds it to the cost

    wanted = case.plain(*inputs, case.joined(*run.outputs))
    for got, right in zip(case.joined(*run.outputs), wanted, strict=True):
        np.testing.assert_array_equal(got, np.asarray(right).astype(got.dtype))
    assert run.digests != usual.digests, "the frames are the usual ones"


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_asked_for_in_small_messages(kind):
    source, choices = KINDS[kind], np.arange(1000, dtype=np.uint8) % 3 % 2
    cost = total([source.request(0, 1000), *keys_work(0, 1000)])

    def keys(party):
        if party.rank == 0:
            return np.stack(party.sender.pads(rows_send(party, 1000), 1))
        return party.receiver.pads(rows_receive(party, choices), 1)

    run = run_dealt(keys, (), (), source, cost, SEED, SMALL)
    usual = run_dealt(keys, (), (), source, cost, SEED)

    both, got = run.outputs
    np.testing.assert_array_equal(got, both[choices, np.arange(1000)])
    assert run.digests[1] != usual.digests[1], "the frames are the usual ones"


@pytest.mark.parametrize("k,messages", [(4, (3, 2)), (8, (10, 6))])
def test_a_store_is_filled_by_messages_of_a_few_chunks(k, messages):
    source, wanted = SoftSpoken(k), (2500, 1500)

    def side(rank):
        def run(wire):
            party = make_party(wire, rank, source, tuning=SMALL)
            with party.messenger.layer("offline", "random ots"):
                party.fill(wanted)
            return party.messenger.trace.entries[-1]

        return run

    entries = run_pair(side(0), side(1))

    assert tuple(entry.messages for entry in entries) == messages[::-1]
    assert tuple(entry.sent_bits for entry in entries) == source.fill((0, 0), wanted)[0].sent


@pytest.mark.parametrize("width", [1, 16, 33, 5000])
def test_chunks_cover_everything_once(width):
    for tuning in (Tuning(), SMALL):
        chunks = tuning.chunks(100_001, width)

        edges = [(chunk.start, chunk.stop) for chunk in chunks]
        assert edges[0][0] == 0 and edges[-1][1] == 100_001
        assert all(one[1] == two[0] for one, two in zip(edges, edges[1:], strict=False))
        assert max(stop - start for start, stop in edges) <= tuning.chunk_ots
    assert Tuning().chunks(0) == []


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Tuning)])
@pytest.mark.parametrize("value", [-1, 1 << 40, True, 256.0])
def test_sizes_out_of_bounds_are_refused_wherever_they_come_from(field, value):
    with pytest.raises(InputError, match=f"{field}.* expected, got"):
        Tuning(**{field: value})
    with pytest.raises(InputError, match=f"{field}.* expected, got"):
        read(Tuning, dataclasses.asdict(Tuning()) | {field: value})


def test_a_document_holds_a_tuning():
    assert read(Tuning, dataclasses.asdict(SMALL)) == SMALL
