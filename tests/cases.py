"""Every protocol, with small rings and every way of sharing: one table for all that is held of each.

`tests/protocols/test_cases.py` runs over it: result and cost, wire trace, re-traced kernels;
`tests/protocols/test_views.py`: what each party sees.
"""

import dataclasses
import itertools
import typing
from collections.abc import Callable

import numpy as np

from pqjax.graph.ir import TensorType
from pqjax.linear import FULL, VARIANTS, ByOt, Job, LinearMap, on_shares_cost
from pqjax.linear import on_shares as shared
from pqjax.linear.choice import Form
from pqjax.linear.products import ProductJob
from pqjax.linear.products_by_ot import ProductsByOt
from pqjax.ot.source import Source
from pqjax.protocols.clamp import clamp, clamp_cost
from pqjax.protocols.compare import (
    and_bits,
    and_cost,
    carry_out,
    carry_out_cost,
    draw_triples,
    known_wrap_bit,
    known_wrap_cost,
    known_wrap_element,
    known_wrap_element_cost,
    less_and_equal,
    less_and_equal_cost,
    less_than,
    negative,
    negative_cost,
    triples_cost,
    wrap_bit,
)
from pqjax.protocols.forms import Forms
from pqjax.protocols.nonlinear import (
    arg_max,
    arg_max_cost,
    max_tree,
    max_tree_cost,
    relu,
    relu_cost,
)
from pqjax.protocols.resize import (
    bit_to_ring,
    bit_to_ring_cost,
    extend,
    extend_cost,
    select,
    select_cost,
    truncate,
    truncate_cost,
    truncate_reduce,
    truncate_reduce_cost,
)
from pqjax.protocols.saturate import saturate, saturate_cost
from pqjax.ring import Ring
from pqjax.wire.cost import Cost, total


class Arg(typing.NamedTuple):
    """An argument of one rank: its width, and whether all repetitions share one value (a weight)."""

    bits: int
    common: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """One protocol.

    Attributes:
      name: as tests and the wire trace show it.
      run: (party, *own arguments) -> tuple of shares. An argument is (n,) of its ring, or an int.
      args: each rank's arguments.
      domain: each rank's values, (m, arguments): row i of both is one joint input that is allowed.
      out: every output's ring; None for XOR-shared bits.
      cost: (source, n) -> Cost.
      plain: (args of rank 0, args of rank 1, joined outputs) -> what the outputs must be.
      rounds: repetitions are rounds of `run` on single elements, and not rows.
    """

    name: str
    run: Callable
    args: tuple[tuple[Arg, ...], tuple[Arg, ...]]
    domain: tuple[np.ndarray, np.ndarray]
    out: tuple[Ring | None, ...]
    cost: Callable[[Source, int], Cost]
    plain: Callable
    rounds: bool = False

    @property
    def widths(self):
        """Bits of every output's elements."""
        return tuple(ring.bits if ring else 1 for ring in self.out)

    def inputs(self, randomness, n):
        """`n` random joint inputs: both ranks' arguments."""
        draws = randomness.elements(n + 1, Ring(32))
        picked, allowed = draws[0] % len(self.domain[0]), np.ones(len(self.domain[0]), bool)
        for values, args in zip(self.domain, self.args, strict=True):
            for j, arg in enumerate(args):
                if arg.common:
                    allowed &= values[:, j] == values[picked, j]
        choice = np.flatnonzero(allowed)
        rows = choice[draws[1:] % len(choice)]
        return self._filled(0, self.domain[0][rows]), self._filled(1, self.domain[1][rows])

    def constant(self, rank, values, n):
        """One rank's arguments, `values` in all n repetitions."""
        return self._filled(rank, np.repeat(np.asarray(values)[None], n, axis=0))

    def _filled(self, rank, rows):
        return tuple(
            int(rows[0, j]) if arg.common else Ring(arg.bits).reduce(rows[:, j])
            for j, arg in enumerate(self.args[rank])
        )

    def joined(self, y0, y1):
        """Both ranks' outputs put together."""
        return tuple(
            a ^ b if ring is None else ring.add(a, b)
            for ring, a, b in zip(self.out, y0, y1, strict=True)
        )

    def secrets(self, who, rng, few=3):
        """A value of rank `who` and several of the other's that are allowed with it, far apart."""
        own, others = self.domain[who], self.domain[1 - who]
        for _ in range(100):
            mine = own[rng.integers(len(own))]
            allowed = np.unique(others[(own == mine).all(1)], axis=0)
            if len(allowed) >= 2:
                break
        chosen = [allowed[rng.integers(len(allowed))]]
        while len(chosen) < min(few, len(allowed)):
            apart = [
                min(np.bitwise_count((row ^ c) & 0xFF).sum() if len(row) else 0 for c in chosen)
                for row in allowed
            ]
            chosen.append(allowed[int(np.argmax(apart))])
        return mine, chosen


# Domains.


def corners(bits, least=8):
    """All values of a narrow ring, else the ends and some between."""
    if bits <= 4:
        return list(range(1 << bits))
    top = (1 << bits) - 1
    step = max(1, top // least | 1)
    return sorted({0, 1, top, top - 1, top >> 1, (top >> 1) + 1, *range(0, top, step)})


def all_pairs(bits0, bits1=None):
    """Every value of rank 0 with every value of rank 1."""
    rows = list(itertools.product(corners(bits0), corners(bits1 or bits0)))
    return np.array([[a] for a, _ in rows]), np.array([[b] for _, b in rows])


def sharings(bits, low=None, high=None):
    """Shares of values that, read as two's complement, lie in [low, high]; of all by default."""
    x0, x1 = all_pairs(bits)
    value = Ring(bits).signed(Ring(bits).reduce(x0 + x1))[:, 0]
    keep = np.ones(len(x0), bool)
    if low is not None:
        keep &= value >= low
    if high is not None:
        keep &= value <= high
    return x0[keep], x1[keep]


def beside(*domains):
    """Every row of each domain with every row of the others."""
    rows = list(itertools.product(*(range(len(d[0])) for d in domains)))

    def of_rank(rank):
        parts = [[d[rank][i] for d, i in zip(domains, row, strict=True)] for row in rows]
        return np.array([np.concatenate(part) for part in parts])

    return of_rank(0), of_rank(1)


def of_rank0(values):
    """A value that rank 0 alone has."""
    return np.array([[v] for v in values]), np.zeros((len(values), 0), int)


def of_rank1(values):
    return np.zeros((len(values), 0), int), np.array([[v] for v in values])


BIT = (None,)
PLAIN = {
    "signed": lambda x, bits: Ring(bits).signed(x),
    "unsigned": lambda x, bits: x.astype(np.int64),
    "nonnegative": lambda x, bits: x.astype(np.int64),
}
LEAST = {"signed": None, "unsigned": None, "nonnegative": 0}


def on_shares(name, bits, run, out, cost, plain, kind="signed", low=None, high=None, stored=False):
    """A protocol on one shared value of `bits` bits."""
    ring = Ring(bits)
    low = LEAST[kind] if low is None else low
    return Case(
        name, run, alike(Arg(bits)), sharings(bits, low, high), out, cost,
        lambda a, b, _: plain(PLAIN[kind](ring.add(a[0], b[0]), bits)),
    )  # fmt: skip


def alike(*args):
    """The same arguments at both ranks."""
    return args, args


def one(function):
    """A protocol of a single output, as a tuple."""
    return lambda party, *args: (function(party, *args),)


def comparisons():
    """What `pqjax.protocols.compare` offers."""
    for bits in (1, 4, 6, 9):
        yield Case(
            f"less than, {bits} bits", one(lambda p, x, b=bits: less_than(p, x, b)),
            alike(Arg(bits)), all_pairs(bits), BIT,
            lambda s, n, b=bits: carry_out_cost(s, n, b), lambda a, b, _: (a[0] < b[0],),
        )  # fmt: skip
    for bits in (3, 6):
        yield Case(
            f"less and equal, {bits} bits", lambda p, x, b=bits: less_and_equal(p, x, b),
            alike(Arg(bits)), all_pairs(bits), (None, None),
            lambda s, n, b=bits: less_and_equal_cost(s, n, b),
            lambda a, b, _: (a[0] < b[0], a[0] == b[0]),
        )  # fmt: skip
    yield Case(
        "wrap, 4 bits", one(lambda p, x: wrap_bit(p, x, 4)), alike(Arg(4)), all_pairs(4),
        BIT, lambda s, n: carry_out_cost(s, n, 4),
        lambda a, b, _: (a[0].astype(int) + b[0] >= 16,),
    )  # fmt: skip
    yield on_shares(
        "negative, 6 bits", 6, one(lambda p, x: negative(p, x, 6)), BIT,
        lambda s, n: negative_cost(s, n, 6), lambda x: (x < 0,),
    )  # fmt: skip
    known = sharings(4, 0)
    for form in ("choice", "table"):
        table = form == "table"
        yield Case(
            f"known wrap, {form}", one(lambda p, x, t=table: known_wrap_bit(p, x, 4, t)),
            alike(Arg(4)), known, BIT,
            lambda s, n, t=table: known_wrap_cost(s, n, t),
            lambda a, b, _: (a[0].astype(int) + b[0] >= 16,),
        )  # fmt: skip
    yield Case(
        "known wrap, element", one(lambda p, x: known_wrap_element(p, x, 4, Ring(5))),
        alike(Arg(4)), known, (Ring(5),),
        lambda s, n: known_wrap_element_cost(s, n, Ring(5)),
        lambda a, b, _: (a[0].astype(int) + b[0] >= 16,),
    )  # fmt: skip
    bits = beside(all_pairs(1), all_pairs(1))
    yield Case(
        "and", one(lambda p, x, y: and_bits(p, x, y)),
        alike(Arg(1), Arg(1)), bits, BIT, and_cost,
        lambda a, b, _: ((a[0] ^ b[0]) & (a[1] ^ b[1]),),
    )  # fmt: skip
    yield Case(
        "triples", lambda p, x: tuple(draw_triples(p, x.size)), alike(Arg(1)),
        all_pairs(1), (None,) * 3, triples_cost,
        lambda a, b, y: (y[0], y[1], y[0] & y[1]),
    )  # fmt: skip


ROUNDS = {"few rounds": Forms(flow_bits=1 << 40), "few bits": Forms(flow_bits=0)}


def circuits():
    """What is one circuit, where OTs come out of a store of several forms."""
    for form, forms in ROUNDS.items():
        yield Case(
            f"carry, {form}", one(lambda p, x, f=forms: carry_out(p, x, 9, f)),
            alike(Arg(9)), all_pairs(9), BIT, lambda s, n, f=forms: carry_out_cost(s, n, 9, f),
            lambda a, b, _: (a[0].astype(int) + b[0] >= 512,)
        )  # fmt: skip
        for bits, cut, low, high, out in SATURATED:
            ring, how = Ring(out), (bits, cut, low, high, Ring(out), forms)
            yield on_shares(
                f"saturate {bits} bits by {cut} to {low}..{high}, {form}", bits,
                one(lambda p, x, h=how: saturate(p, x, *h)), (ring,),
                lambda s, n, h=how: saturate_cost(s, n, *h),
                lambda x, c=cut, l=low, h=high, r=ring: (r.reduce(np.clip(x >> c, l, h)),),
            )  # fmt: skip


# Widths, cut and limits: with all of carry, inside and over, without some, and tops of several digits.
SATURATED = [
    (9, 2, 0, 7, 9), (9, 3, -8, 7, 9), (7, 2, 0, 15, 7), (7, 0, 0, 3, 5), (7, 0, -4, 3, 4),
    (9, 1, 0, 1, 2), (9, 1, -1, 0, 1),
]  # fmt: skip


def resizings():
    """What `pqjax.protocols.resize` offers."""
    yield Case(
        "b2a, 5 bits", one(lambda p, b: bit_to_ring(p, b, Ring(5))), alike(Arg(1)),
        all_pairs(1), (Ring(5),), lambda s, n: bit_to_ring_cost(s, n, Ring(5)),
        lambda a, b, _: (a[0] ^ b[0],),
    )  # fmt: skip
    for chosen in (False, True):
        yield Case(
            f"mux, {'chosen' if chosen else 'correlated'}",
            one(lambda p, x, b, c=chosen: select(p, x, b, Ring(4), c)),
            alike(Arg(4), Arg(1)), beside(all_pairs(4), all_pairs(1)), (Ring(4),),
            lambda s, n, c=chosen: select_cost(s, n, Ring(4), c),
            lambda a, b, _: (Ring(4).add(a[0], b[0]) * (a[1] ^ b[1]),),
        )  # fmt: skip
    known = [("nonnegative", Forms("choice")), ("nonnegative", Forms("table"))]
    unknown = [("signed", Forms()), ("unsigned", Forms())]
    for kind, form in [*unknown, ("nonnegative", Forms()), *known]:
        how = (kind != "unsigned", kind == "nonnegative", form)
        yield on_shares(
            f"extend, {kind}, {form.known_wrap}", 4, one(lambda p, x, h=how: extend(p, x, 4, 7, *h)),
            (Ring(7),), lambda s, n, h=how: extend_cost(s, n, 4, 7, *h),
            lambda x: (Ring(7).reduce(x),), kind,
        )  # fmt: skip
    for bits, shift, keep in [(6, 2, None), (6, 2, 2), (5, 4, None), (7, 5, 1)]:
        left = Ring(keep or bits - shift)
        yield on_shares(
            f"truncate and reduce, {bits} bits by {shift} to {left.bits}", bits,
            one(lambda p, x, b=bits, s=shift, k=keep: truncate_reduce(p, x, b, s, k)), (left,),
            lambda s, n, b=bits, h=shift, k=keep: truncate_reduce_cost(s, n, b, h, k),
            lambda x, r=left, s=shift: (r.reduce(x >> s),),
        )  # fmt: skip
    for kind, form in [*unknown, *known]:
        how = (kind != "unsigned", kind == "nonnegative", form)
        yield on_shares(
            f"truncate, {kind}, {form.known_wrap}", 6, one(lambda p, x, h=how: truncate(p, x, 6, 2, *h)),
            (Ring(6),), lambda s, n, h=how: truncate_cost(s, n, 6, 2, *h),
            lambda x: (Ring(6).reduce(x >> 2),), kind,
        )  # fmt: skip


def activations():
    """What `pqjax.protocols.nonlinear` and `clamp` offer."""
    for chosen in (False, True):
        forms, form = Forms(relu_chosen=chosen), "chosen" if chosen else "correlated"
        for bits in (4, 6):
            yield on_shares(
                f"relu, {bits} bits, {form}", bits,
                one(lambda p, x, b=bits, f=forms: relu(p, x, b, f)), (Ring(bits),),
                lambda s, n, b=bits, f=forms: relu_cost(s, n, b, f),
                lambda x: (np.maximum(x, 0),),
            )  # fmt: skip
        for low, high, out, kind in [(0, 3, 2, "signed"), (0, 5, 4, "nonnegative"),
                                     (-4, 3, 3, "signed")]:  # fmt: skip
            nonnegative, ring = kind == "nonnegative", Ring(out)
            yield on_shares(
                f"clamp to {low}..{high}, {kind}, {form}", 5,
                one(lambda p, x, l=low, h=high, r=ring, k=nonnegative, f=forms:
                    clamp(p, x, 5, l, h, r, k, f)), (ring,),
                lambda s, n, l=low, r=ring, k=nonnegative, f=forms: clamp_cost(s, n, 5, l, r, k, f),
                lambda x, l=low, h=high, r=ring: (r.reduce(np.clip(x, l, h)),), kind,
            )  # fmt: skip
        half = sharings(4, -3, 3)  # differences fit
        three = beside(*(tuple(d[::5] for d in half),) * 3)
        yield Case(
            f"max of 3, {form}",
            one(lambda p, *x, f=forms: max_tree(p, np.stack(x), 4, f)), alike(*[Arg(4)] * 3), three,
            (Ring(4),), lambda s, n, f=forms: max_tree_cost(s, 3, n, 4, f),
            lambda a, b, _: (Ring(4).reduce(
                np.max([Ring(4).signed(Ring(4).add(x, y)) for x, y in zip(a, b, strict=True)], 0)),),
        )  # fmt: skip
        two = beside(*(tuple(d[::2] for d in half),) * 2)
        yield Case(
            f"arg max of 2, {form}",
            lambda p, x, y, f=forms: (np.concatenate(
                [arg_max(p, np.stack(pair)[:, None], 4, 1, f) for pair in zip(x, y, strict=True)]),),
            alike(Arg(4), Arg(4)), two, (Ring(1),),
            lambda s, n, f=forms: total([arg_max_cost(s, 2, 1, 4, 1, f)] * n),
            lambda a, b, _: (Ring(4).signed(Ring(4).add(a[1], b[1]))
                             > Ring(4).signed(Ring(4).add(a[0], b[0])),),
            rounds=True,
        )  # fmt: skip


WEIGHTS = (-2, -1, 0, 1)
L = 6  # a sum of two weights of 2 bits times 3-bit values


def _operand(variant, kind, wide):
    """Shares of what a product multiplies: of 3 bits, in the accumulator's ring where it is full."""
    if wide:
        x0, x1 = sharings(L)
        return x0[::3], x1[::3]
    return sharings(3, LEAST[kind])


def linear_job(variant, kind, linear_map):
    """Weights of 2 bits and an operand of 3, which fills the ring where the variant does not extend."""
    bits = L if variant in FULL else 3
    x = TensorType(linear_map.in_shape, bits, 0, kind != "unsigned", kind == "nonnegative")
    return Job(linear_map, 2, x, L)


def dense(n):
    """Two outputs of one input each; the repetitions are pixels."""
    return LinearMap.pointwise((1, n), 1, 2)


def grouped(n):
    """A pixel and two taps, which both read it, in every group; the repetitions are groups."""
    return LinearMap((1, 1), (1, 2), (1, 1), ((0, 0), (1, 1)), (1, 1), n, n, n)


def _weights(linear_map, w0, w1):
    """The same in all repetitions."""
    return np.broadcast_to(np.reshape([w0, w1], (1, -1, 1, 1)), (1, 2, 1, linear_map.groups))


def products():
    """What `pqjax.linear` offers, on patches and on pixels."""
    both = of_rank0(WEIGHTS)
    forms = {"signed": Forms("choice", True), "nonnegative": Forms("table", True),
             "unsigned": Forms()}  # fmt: skip
    kinds = [(v, k) for v in VARIANTS for k in ("signed", "nonnegative", "unsigned")
             if k == "signed" or v not in FULL]  # fmt: skip
    shapes: tuple[tuple[str, Callable[[int], LinearMap], Form], ...] = (
        ("product", dense, "patches"), ("grouped", grouped, "pixels"),
    )  # fmt: skip

    def of_rank(party, map_of, own):
        """The map, the weights at rank 0 and own share as an image."""
        x = own[-1].reshape(1, 1, -1)
        linear_map = map_of(x.size)
        if linear_map.groups == 1:
            x = x.reshape(linear_map.in_shape)
        return linear_map, x

    for variant, kind in kinds:
        wide, form = variant in FULL, forms[kind]
        width = L if wide else 3
        args = ((Arg(2, True), Arg(2, True), Arg(width)), (Arg(width),))
        domain = beside(both, both, _operand(variant, kind, wide))
        for name, map_of, layout in shapes:
            method = ByOt(variant, layout)

            def run(party, *own, m=method, of=map_of, k=kind, f=form):
                linear_map, x = of_rank(party, of, own)
                job = linear_job(m.variant, k, linear_map)
                if party.rank == 0:
                    encoded = m.encode(job, _weights(linear_map, *own[:2]))
                    y = shared.serve(party, m, job, encoded, x, f)
                else:
                    y = shared.ask(party, m, job, x, f)
                return (y.reshape(-1, 2).T if linear_map.groups == 1 else y[0],)

            def plain(a, b, _, kind=kind, width=width, flip=1 if name == "product" else -1):
                x = PLAIN[kind](Ring(width).add(a[2], b[0]), width)
                return (Ring(L).reduce(np.stack([w * x for w in a[:2][::flip]])),)

            yield Case(
                f"{name} {variant}, {kind}", run, args, domain, (Ring(L),),
                lambda s, n, m=method, of=map_of, k=kind, f=form: on_shares_cost(
                    s, m, linear_job(m.variant, k, of(n)), f),
                plain,
            )  # fmt: skip
    for variant in FULL:
        # Rank 0 has no share here; a column of zeros tells it how many repetitions there are.
        args = ((Arg(2, True), Arg(2, True), Arg(1)), (Arg(L),))
        domain = beside(both, both, of_rank0([0]), of_rank1(corners(L)))
        for name, map_of, layout in shapes:
            method = ByOt(variant, layout)

            def run_ahead(party, *own, m=method, of=map_of):
                linear_map, x = of_rank(party, of, own)
                job = linear_job(m.variant, "signed", linear_map)
                if party.rank == 0:
                    y = m.serve(party, job, m.encode(job, _weights(linear_map, *own[:2])))
                else:
                    y = m.ask(party, job, x)
                return (y.reshape(-1, 2).T if linear_map.groups == 1 else y[0],)

            yield Case(
                f"{name} ahead {variant}", run_ahead, args, domain, (Ring(L),),
                lambda s, n, m=method, of=map_of: m.cost(s, linear_job(m.variant, "signed", of(n))),
                lambda a, b, _, flip=1 if name == "product" else -1: (
                    Ring(L).reduce(np.stack([w * b[0].astype(int) for w in a[:2][::flip]])),),
            )  # fmt: skip


def shared_products():
    """What `pqjax.linear.products_by_ot` offers: a head for every repetition."""
    forms = {"signed": Forms("choice"), "nonnegative": Forms("table"), "unsigned": Forms()}
    for variant, kinds in (
        ("extend-a-choose-a", ("signed", "nonnegative")), ("extend-a-choose-b", ("signed", "signed")),
        ("extend-b-choose-a", ("unsigned", "signed")), ("extend-b-choose-b", ("nonnegative",) * 2),
        ("full-choose-a", ("nonnegative", "signed")), ("full-choose-b", ("signed", "unsigned")),
    ):  # fmt: skip
        way, form, ring = ProductsByOt(variant), forms[kinds[0]], Ring(7)
        left, right = (TensorType((1,), 3, 0, k != "unsigned", k == "nonnegative") for k in kinds)

        def job(n, left=left, right=right):
            return ProductJob(n, 1, 1, 1, left, right, 7)

        def run(party, a, b, way=way, job=job, form=form):
            a, b = (x.reshape(-1, 1, 1) for x in (a, b))
            return (way.run(party, form, job(len(a)), a, b, None).reshape(-1),)

        def plain(a, b, _, kinds=kinds, ring=ring):
            x, y = (
                PLAIN[kind](Ring(3).add(own, other), 3)
                for kind, own, other in zip(kinds, a, b, strict=True)
            )
            return (ring.reduce(x * y),)

        domains = [tuple(x[::step] for x in sharings(3, LEAST[kind]))
                   for kind, step in zip(kinds, (2, 3), strict=True)]  # fmt: skip
        yield Case(
            f"shared product {variant}, {kinds[0]} and {kinds[1]}", run, alike(Arg(3), Arg(3)),
            beside(*domains), (ring,),
            lambda s, n, w=way, j=job, f=form: total(w.parts(s, f, j(n)).online.values()), plain,
        )  # fmt: skip


CASES = {case.name: case for part in (comparisons, circuits, resizings, activations, products,
                                      shared_products)
         for case in part()}  # fmt: skip
