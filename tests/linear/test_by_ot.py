"""Linear layers by OT: exact in every variant, form and shape, cost as predicted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import ALIKE, NONE, maps, operand, random_layer, slow_conv
from pairs import INLINE, STOCKED, TUNING, of_rank, run_protocol, shares
from pairs import KINDS as SOURCES

from pqjax.linear import (
    FULL,
    VARIANTS,
    ByOt,
    Choice,
    Job,
    LinearMap,
    ahead,
    ahead_cost,
    method_of,
    on_shares,
    on_shares_cost,
)
from pqjax.linear.by_ot_layout import layout_of
from pqjax.linear.choice import Form
from pqjax.ot.tuning import Tuning
from pqjax.protocols.forms import Forms
from pqjax.ring import Ring

FEW = settings(max_examples=25, deadline=None)
FORMS = ("patches", "pixels")
EVERY = pytest.mark.parametrize("variant", VARIANTS)
BOTH = pytest.mark.parametrize("form", FORMS)
DENSE = LinearMap.pointwise((1, 1), 7, 3)


def assert_exact(rng, variant, form, layer, source, forms=None, tuning=TUNING):
    """On shares: the plain result, and bits, flows and OTs as priced."""
    (job, w, x), method, forms = layer, ByOt(variant, form), forms or Forms()
    x0, x1 = shares(rng, x, job.x.bits)
    assert method.fits(job, False) is None

    y = run_protocol(
        of_rank(
            lambda party, x: on_shares.serve(party, method, job, method.encode(job, w), x, forms),
            lambda party, x: on_shares.ask(party, method, job, x, forms),
        ),
        (x0,), (x1,), source, on_shares_cost(source, method, job, forms), tuning,
    )  # fmt: skip

    ring = Ring(job.bits)
    wanted = slow_conv(x, w, job.map).astype(np.int64)
    np.testing.assert_array_equal(ring.add(*y), ring.reduce(wanted))


KINDS = ["signed", "unsigned", "nonnegative"]


@FEW
@given(maps(), st.sampled_from([*VARIANTS]), st.sampled_from(KINDS), st.integers(0, 999))
def test_any_shape_in_any_variant_by_pixels(m, variant, kind, seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, m, variant in FULL, kind)

    assert_exact(rng, variant, "pixels", layer, STOCKED)


@FEW
@given(maps(most_groups=1), st.sampled_from([*VARIANTS]), st.sampled_from(KINDS),
       st.integers(0, 999))  # fmt: skip
def test_any_shape_of_one_group_in_any_variant_in_both_forms(m, variant, kind, seed):
    for form in FORMS:
        rng = np.random.default_rng(seed)
        assert_exact(rng, variant, form, random_layer(rng, m, variant in FULL, kind), STOCKED)


NAMED = {
    "dense": DENSE,
    "pointwise": LinearMap.pointwise((2, 3), 7, 3),
    "stride": LinearMap((6, 5), (3, 3), (2, 2), ALIKE, (1, 1), 1, 2, 3),
    "dilation": LinearMap((6, 5), (3, 3), (1, 1), ALIKE, (2, 2), 1, 2, 3),
    "dilation and stride": LinearMap((7, 6), (3, 2), (2, 1), ((2, 2), (0, 1)), (2, 3), 1, 1, 2),
    "asymmetric padding": LinearMap((5, 4), (3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1), 1, 2, 2),
    "rectangular kernel": LinearMap((4, 6), (1, 5), (1, 1), ((0, 0), (2, 2)), (1, 1), 1, 2, 2),
    "groups": LinearMap((5, 4), (3, 3), (1, 1), ALIKE, (1, 1), 2, 4, 6),
    "depthwise": LinearMap((5, 4), (3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1), 6, 6, 6),
}


@EVERY
@pytest.mark.parametrize("source,forms", [("inline", Forms("choice", True)),
                                          ("inline", Forms("table", True)),
                                          ("stocked", Forms())])  # fmt: skip
@pytest.mark.parametrize("name", NAMED)
def test_every_kind_of_layer_in_every_variant(name, variant, source, forms):
    m, rng = NAMED[name], np.random.default_rng(3)
    for form in FORMS[m.groups > 1 :]:
        layer = random_layer(rng, m, variant in FULL, "nonnegative")
        assert_exact(rng, variant, form, layer, SOURCES[source], forms)


@EVERY
@BOTH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("w_bits,x_bits,bits", [(2, 4, 16), (4, 8, 19), (3, 5, 9), (8, 8, 37)])
@pytest.mark.parametrize("source,forms", [("inline", Forms("choice", True)), ("stocked", Forms())])
def test_widths(variant, form, kind, w_bits, x_bits, bits, source, forms):
    rng = np.random.default_rng(bits)
    m = LinearMap.pointwise((1, 5), 7, 3)
    job, w, x = random_layer(rng, m, False, kind, (w_bits, x_bits))
    own = operand(m, bits if variant in FULL else x_bits, kind)
    job = Job(m, w_bits, own, bits)

    assert_exact(rng, variant, form, (job, w, x), SOURCES[source], forms)


@pytest.mark.parametrize("variant", FULL)
@BOTH
@pytest.mark.parametrize("name", ["dense", "dilation", "stride"])
def test_a_layer_done_ahead_takes_one_masked_operand_online(name, form, variant):
    rng = np.random.default_rng(5)
    (job, w, x), method = random_layer(rng, NAMED[name], True), ByOt(variant, form)
    x0, x1 = shares(rng, x, job.bits)
    offline, online = ahead_cost(STOCKED, method, job)

    def server(party, x):
        encoded = method.encode(job, w)
        ready = ahead.prepare_serve(party, method, job, encoded)
        return ahead.serve(party, job, encoded, x, ready)

    def client(party, x):
        return ahead.ask(party, job, x, ahead.prepare_ask(party, method, job))

    y = run_protocol(of_rank(server, client), (x0,), (x1,), STOCKED, offline + online)

    ring = Ring(job.bits)
    wanted = slow_conv(x, w, job.map).astype(np.int64)
    np.testing.assert_array_equal(ring.add(*y), ring.reduce(wanted))
    assert online.bits == x.size * job.bits and online.flows == 1


@pytest.mark.parametrize("variant", ["full-choose-x", "full-choose-w", "1-extend-w-choose-x"])
@pytest.mark.parametrize("form,groups", [("pixels", 3), ("pixels", 1), ("patches", 1)])
def test_tiles_cut_groups_outputs_and_inputs(form, groups, variant):
    m = LinearMap((2, 5), (3, 3), (1, 1), ALIKE, (1, 1), groups, 3 * groups, 3 * groups)
    chosen = VARIANTS[variant].chosen
    tuning = Tuning(product_elements=256)
    most = tuning.product_elements
    laid = m.columns if form == "patches" else m
    tiles = layout_of(laid, chosen, form, most).tiles

    assert len(tiles) > 3 and len({tile.elements for tile in tiles}) > 1
    assert max(tile.elements for tile in tiles) <= most
    assert sum(tile.elements for tile in tiles) == laid.pairs
    rng = np.random.default_rng(4)
    assert_exact(rng, variant, form, random_layer(rng, m, variant in FULL), STOCKED, tuning=tuning)


@settings(max_examples=100, deadline=None)
@given(maps(most_groups=1), st.sampled_from([v for v in VARIANTS if v.endswith("choose-w")]),
       st.sampled_from([INLINE, STOCKED]))  # fmt: skip
def test_where_weights_choose_pixels_never_cost_more_than_patches(m, variant, source):
    job = Job(m, 3, operand(m, 4, "signed"), 16)

    patches, pixels = (ByOt(variant, form).cost(source, job) for form in FORMS)

    assert pixels.bits <= patches.bits and pixels.flows == patches.flows
    assert all(a <= b for a, b in zip(pixels.rots, patches.rots, strict=True))
    if m.padding == NONE:  # nothing is carried along
        assert pixels == patches


@pytest.mark.parametrize("source", [INLINE, STOCKED])
def test_without_padding_the_cost_by_weights_is_that_of_as_many_products(source):
    whole = LinearMap((9, 9), (3, 3), (1, 1), NONE, (1, 1), 8, 8, 8)
    alone = dataclasses.replace(whole, groups=1, inputs=1, outputs=1)

    def cost_of(m, form: Form):
        job = Job(m, 4, operand(m, 16, "nonnegative"), 16)
        return ByOt("full-choose-w", form).cost(source, job)

    together, one = cost_of(whole, "pixels"), cost_of(alone, "patches")

    assert together.bits == 8 * one.bits and together.flows == one.flows


def test_a_pixels_bits_choose_once_for_all_its_uses():
    m = LinearMap((8, 8), (3, 3), (1, 1), ALIKE, (1, 1), 5, 5, 5)
    method, job = ByOt("1-extend-w-choose-x", "pixels"), Job(m, 4, operand(m, 6, "nonnegative"), 16)

    assert method.cost(INLINE, job).bits == 5 * (64 * 6 * 128 + 22 * 22 * (6 * 16 - 15))


def test_what_a_method_cannot_do_it_says():
    m = NAMED["groups"]
    job = Job(m, 4, operand(m, 6, "signed"), 16)

    assert "one group only, got 2 groups" in (
        ByOt("full-choose-w", "patches").fits(job, True) or ""
    )
    assert "needs an operand of 16 bits, got 6" in (
        ByOt("full-choose-w", "pixels").fits(job, False) or ""
    )
    assert ByOt("full-choose-w", "pixels").fits(job, True) is None


@pytest.mark.parametrize(
    "w_bits,dtype", [(2, np.int8), (8, np.int8), (9, np.int16), (37, np.int64)]
)
def test_weights_are_kept_narrow_and_cannot_be_changed_or_printed(w_bits, dtype):
    job = Job(DENSE, w_bits, operand(DENSE, 6, "signed"), 40)
    w = np.random.default_rng(0).integers(-2, 2, (7, 3))

    encoded = ByOt("full-choose-w", "patches").encode(job, w)

    assert encoded.weights.dtype == dtype and "array" not in repr(encoded)
    np.testing.assert_array_equal(encoded.weights.reshape(w.shape), w)
    with pytest.raises(ValueError, match="read-only"):
        encoded.weights[...] = 0


def test_a_choice_names_its_method_and_reads_as_a_line():
    choice = Choice("ot", "2-extend-w-choose-w", "pixels", "shared")

    assert method_of(choice) == ByOt("2-extend-w-choose-w", "pixels")
    assert str(choice) == "2-extend-w-choose-w by ot on pixels, shared"
