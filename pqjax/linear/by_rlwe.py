"""Linear layers on ciphertexts, with static hints: one message up, none back.

What the client needs to find its share does not depend on any input: the layer's hint, which it gets
once, and a secret of its own. The server finds its share by one plain convolution of what it is sent.

    install   server -> client   the hint                                      hints N hint_bits
    offline   client -> server   the low bits of what masks the operand        tiles slots (t - l)
    online    client -> server   its share of the operand, masked              tiles slots l

All t bits travel online where the choice is `shared`. Secrets, and keys that merge hints:
`pqjax.linear.keys`. Shares come with
guard bits: g of them are one, and an accumulator of g - 1 bits more (docs/design.md, "Linear layers over
RLWE").
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Integer, UInt, UInt8

from pqjax.errors import InputError
from pqjax.he import (
    STATIC,
    Filter,
    Hint,
    Matrix,
    Merging,
    Precision,
    ServerKey,
    Tiling,
    Version,
    cheapest,
    merged_precision,
    merged_tilings,
)
from pqjax.he.levels import MOST
from pqjax.he.phases import Geometry
from pqjax.he.shares import short, with_masks
from pqjax.linear.choice import AnyPacking, Choice, Packing, When
from pqjax.linear.job import Encoded, Job, Parts, filling, narrowed, unfilled
from pqjax.linear.keys import Keys, Secrets
from pqjax.linear.map import Image
from pqjax.ot.source import Source
from pqjax.protocols.forms import Forms
from pqjax.protocols.party import Party
from pqjax.ring import Ring
from pqjax.wire.cost import NOTHING, message, work

VARIANTS = STATIC_HINTS, MERGED_HINTS = "static-hints", "merged-hints"
_SPANS = (1, 10, 100, 1000)  # inferences that packings are made for, to choose from


@dataclasses.dataclass(frozen=True, repr=False)  # the model, and what hides it
class Keyed(Encoded):
    """Rank 0's weights with the secrets that hide them in hints."""

    key: ServerKey


@dataclasses.dataclass(frozen=True, repr=False)  # shares and masks
class Ready:
    """A layer prepared for one inference, to be used once.

    Attributes:
      masks: what masks the client's operand, in Ring(t), or at the server the low bits of it that came.
      share: the client's share of the result (H', W', K), or the server's encryptions of zero, (tiles,
        K, pixels).
    """

    masks: UInt[np.ndarray, "tiles slots"]
    share: np.ndarray


def bound(job: Job) -> Filter:
    """What any weights of the declared width keep to, and to what the graph declares of their norm."""
    most = job.map.terms << 2 * (job.w_bits - 1)
    known = most if job.square_bits is None else min(most, 1 << job.square_bits)
    return Filter(known, job.map.terms)


def packings(job: Job, inferences: int) -> Iterator[Packing]:
    """The best for some numbers of inferences, each once; InputError where none is wide enough."""
    found = {}
    for span in sorted({*_SPANS, inferences}):
        tiling, own = _cheapest(job.map, job.exact_bits, bound(job), span)
        packing = Packing(tiling.tile, tiling.filters, own.sent_bits, own.hint_bits)
        found[packing] = None
    yield from found


_cheapest = functools.lru_cache(maxsize=1 << 12)(cheapest)


def merged_packings(job: Job, inferences: int) -> tuple[Packing, ...]:
    """Those that merge hints and are best for so many inferences; InputError where none can be."""
    found = _merged(job.map, job.exact_bits, bound(job), inferences)
    if not found:
        raise InputError(
            "no filters' hints can be merged: too few filters, or sums too wide for keys"
        )
    return found


@functools.lru_cache(maxsize=1 << 12)
def _merged(m: Geometry, sum_bits: int, of: Filter, inferences: int) -> tuple[Packing, ...]:
    """For every number of hints in one those that none of fewer tiles sends less than."""
    found = []
    for together in (1 << i for i in range(1, MOST.bit_length())):
        with contextlib.suppress(InputError):
            own, least = merged_precision(sum_bits, of, together), math.inf
            assert own.merging
            widths = own.sent_bits, own.hint_bits, together, own.merging.key_bits
            for tiling in sorted(merged_tilings(m, STATIC.degree, together), key=lambda t: t.tiles):
                bits = tiling.hint_cost(own.hint_bits) + inferences * tiling.sent_cost(
                    own.sent_bits
                )
                if bits < least:
                    least = bits
                    found.append(Packing(tiling.tile, 1, *widths))
    return tuple(found)


@functools.lru_cache(maxsize=1 << 10)
def _laid(job: Job, packing: Packing) -> tuple[Tiling, Precision]:
    tiling = Tiling(job.map, STATIC.degree, packing.tile, packing.filters, packing.merged)
    if (packing.merged > 1) != (packing.key_bits > 0):
        raise InputError(
            f"keys merge hints, got {packing.merged} in one and {packing.key_bits} bits"
        )
    merging = Merging(packing.merged, packing.key_bits) if packing.merged > 1 else None
    of, widths = bound(job).packed(packing.filters), (packing.sent_bits, packing.hint_bits)
    return tiling, Precision(STATIC, of, job.exact_bits, *widths, merging)


@dataclasses.dataclass(frozen=True)
class ByRlwe:
    """A `Way` with the layout and the widths that a plan names.

    Attributes:
      packing: these; None in a preset.
      when: when what travels does.
      variant: whether filters' hints are merged, so that a client gets fewer and sends keys.
    """

    packing: AnyPacking | None
    when: When
    variant: str = STATIC_HINTS
    guards = exact = True

    def unfit(self, job: Job, own: bool) -> str | None:
        """Why not: an operand narrower than the accumulator, or no parameters are safe and exact."""
        if job.x.bits < job.bits and not own:
            return unfilled(job, own)
        try:
            next(iter(self._packings(job, 1))) if self.packing is None else self._laid(job)
        except InputError as error:
            return f"cannot be encrypted: {error}"
        return None

    def options(self, choice: Choice, job: Job, inferences: int) -> list[Choice]:
        """The choice with every packing worth a look."""
        return [dataclasses.replace(choice, packing=p) for p in self._packings(job, inferences)]

    def secrets(self, job: Job) -> Secrets:
        """One for every tile, with keys if hints are merged."""
        tiling, own = self._laid(job)
        if own.merging is None:
            return Secrets(tiling.tiles)
        return Secrets(tiling.tiles, tiling.tiles, tuple(x.digits for x in own.merging.levels))

    def parts(self, source: Source, forms: Forms, job: Job) -> Parts:
        """The hint once; a ciphertext in one or two parts with every inference. No OTs."""
        tiling, own = self._laid(job)
        early = self._low_bits(own) * tiling.tiles * tiling.slots
        late = tiling.sent_cost(own.sent_bits) - early
        hint = message(0, tiling.hint_cost(own.hint_bits))
        n, tiles, slots = STATIC.degree, tiling.tiles, tiling.tiles * tiling.slots
        digits = sum(x.digits for x in own.merging.levels) if own.merging else 0
        zeros, masked = tiles * tiling.hints * (1 + digits) * n, tiles * tiling.polynomials * n
        # of masks and of hints at the client; at the server of zeros
        ahead = work("steps", 6, 10) + work("coefficients", zeros, masked)
        ahead += message(1, early) if early else NOTHING
        ahead += work("coefficients", 0, tiles * tiling.hints * n)
        online = work("steps", 8, 1) + work("words", slots) + message(1, late)
        online += work("macs", tiles * tiling.products(own.sent_bits), 0)
        online += work("words", slots + tiles * tiling.hints * tiling.sums, 0)
        return Parts({"hint": hint}, {"low bits": ahead}, {"masked input": online})

    def load(
        self, job: Job, weights: Integer[np.ndarray, " *w"], name: str, version: Version
    ) -> Keyed:
        """The weights, narrow and read-only, and the layer's secrets of this version."""
        narrow, matrix = narrowed(job, weights), self._matrix(job, name, version.seed)
        own = self._laid(job)
        return Keyed(narrow, ServerKey.draw(*own, narrow, matrix, version.randomness("u", name)))

    def hint(
        self, job: Job, own: Keyed, name: str, version: Version
    ) -> UInt8[np.ndarray, " bytes"]:
        """What clients get once, the same for all of them. Takes a while."""
        matrix = self._matrix(job, name, version.seed)
        return own.key.hint(matrix, version.randomness("e1", name)).pack()

    def prepare(self, party: Party, job: Job, name: str, own: object, keys: Keys | None) -> Ready:
        """The offline phase, both parties at once; `own` is what `load` made, or the client's hint."""
        assert keys is not None
        tiling, widths = self._laid(job)
        low = Ring(self._low_bits(widths)) if self._low_bits(widths) else None
        with party.messenger.step("low bits"):
            if party.rank == 0:
                assert isinstance(own, Keyed) and keys.public is not None
                shape = tiling.tiles, tiling.slots
                early = np.zeros(shape, np.uint8)
                if low is not None:
                    n = tiling.tiles * tiling.slots
                    early = party.messenger.receive_elements(n, low).reshape(shape)
                merging = keys.merging[: tiling.tiles] if widths.merging else [()] * tiling.tiles
                each = zip(keys.public[: tiling.tiles, None], merging, strict=True)
                return Ready(early, np.stack([own.key.zero(*mine) for mine in each]))
            secrets = keys.secrets[: tiling.tiles]
            matrix = self._matrix(job, name, keys.seed)
            masks = np.stack([tiling.used(secret.masks(matrix)[None])[0] for secret in secrets])
            masks = short(masks, widths)
            if low is not None:
                party.messenger.send_elements(low.reduce(masks), low)
        assert isinstance(own, np.ndarray)
        hint = Hint.unpack(widths, own)
        share = tiling.join(np.stack([secret.share(tiling, hint) for secret in secrets]))
        return Ready(masks, share)

    def run(
        self, party: Party, forms: Forms, job: Job, own: object, x: Image, ready: Ready
    ) -> Image:
        """Own share (H', W', K) of [W x] with guard bits, of own share x (H, W, C)."""
        tiling, widths = self._laid(job)
        ring, low = Ring(widths.sum_bits), self._low_bits(widths)
        more = widths.sum_bits - job.bits
        slots = tiling.used(tiling.cut(ring.shift_left(filling(job, x).astype(ring.dtype), more)))
        late = Ring(widths.sent_bits - low)
        with party.messenger.step("masked input"):
            if party.rank == 1:
                sent = with_masks(slots, ready.masks, widths)
                party.messenger.send_elements(late.reduce(sent >> sent.dtype.type(low)), late)
                return ready.share
            high = party.messenger.receive_elements(slots.size, late).reshape(slots.shape)
        assert isinstance(own, Keyed)
        sent = (high.astype(np.uint64) << np.uint64(low)) + ready.masks
        return tiling.join(own.key.share(sent, ready.share, slots))

    def _low_bits(self, own: Precision) -> int:
        """Bits of what is sent that do not depend on the input, and travel before it is known."""
        return own.sent_bits - own.sum_bits if self.when == "ahead" else 0

    def _laid(self, job: Job) -> tuple[Tiling, Precision]:
        if not isinstance(self.packing, Packing):
            raise InputError("its packing is of another method")
        if (self.packing.merged > 1) != (self.variant == MERGED_HINTS):
            raise InputError(f"{self.variant} with {self.packing.merged} hints in one")
        return _laid(job, self.packing)

    def _packings(self, job: Job, inferences: int) -> Iterable[Packing]:
        return (merged_packings if self.variant == MERGED_HINTS else packings)(job, inferences)

    def _matrix(self, job: Job, name: str, seed: bytes) -> Matrix:
        return Matrix(STATIC, seed, name, self._laid(job)[0].polynomials)
