"""Takes away one mask or one secret at a time, and says which tests notice.

    python tests/mutants.py            all of them; exits 1 if any survives
    python tests/mutants.py --list     their names
    python tests/mutants.py NAME ...   some
    python tests/mutants.py --all      against all fast tests instead of those that should notice

A mutant is exact text replaced in a copy of the tree; each text must occur exactly once. Most leave
every answer right: only what somebody sees is wrong. The wire trace is not among the tests asked, for
it notices any change at all.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import typing

ROOT = pathlib.Path(__file__).parents[1]
DEADLINE_S = 300.0
FAST = ("tests",)


class Edit(typing.NamedTuple):
    """One replacement in one file."""

    file: str
    old: str
    new: str


class Mutant(typing.NamedTuple):
    """A fault: its name, the tests that should notice (pytest's arguments), its edits."""

    name: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]


def _views(cases):
    return ("tests/protocols/test_views.py", "-k", cases)


SECRETS = ("tests/ot/test_secrets.py",)
OTS = ("tests/ot/test_secrets.py", "tests/ot/test_ot.py")
SILENT = ("tests/ot/test_silent.py",)
HASH = ("tests/crypto/test_crhash.py",)
RLWE = ("tests/he/test_rlwe_secrets.py",)
MERGING = ("tests/he/test_merging.py",)
BY_RLWE = ("tests/linear/test_by_rlwe.py",)
BY_REPLY = ("tests/linear/test_by_reply.py",)
_BY_REPLY = "pqjax/linear/by_reply.py"
_KEYS = "pqjax/linear/keys.py"
REPLY = ("tests/he/test_reply_secrets.py",)
BILINEAR = ("tests/he/test_bilinear.py",)
DESK, _DESK = ("tests/service/test_desk.py",), "pqjax/engine/desk.py"
LIMITED = ("tests/service/test_models.py", "-k", "answers or background")
TICKETS = ("tests/fleet/test_tickets.py",)
_TICKETS = "pqjax/fleet/tickets.py"
REPLICA = ("tests/fleet/test_replica.py", "-k", "lets_in")
PRODUCTS = ("tests/linear/test_products.py", "-k", "own")
_BY_PRODUCTS = "pqjax/linear/products_by_rlwe.py"
STORE, _SPENDING = ("tests/engine/test_store.py",), "pqjax/engine/spending.py"
AHEAD = ("tests/engine/test_ahead.py",)
RUNS = ("tests/engine/test_whole_views.py",)


def _one(name, tests, file, old, new):
    return Mutant(name, tests, (Edit(file, old, new),))


_PRG, _BASE, _SETUP = "pqjax/crypto/prg.py", "pqjax/ot/base.py", "pqjax/ot/setup.py"
_STOCKED, _INLINE = "pqjax/ot/stocked.py", "pqjax/ot/inline.py"
_SILENT, _CODE = "pqjax/ot/silent.py", "pqjax/ot/silent_code.py"
_SOFT, _KKOT = "pqjax/ot/softspoken.py", "pqjax/ot/kkot.py"
_HASH = "pqjax/crypto/crhash.py"
_CORR, _TRIPLES = "pqjax/ot/correlations.py", "pqjax/ot/triples.py"
_COMPARE, _RESIZE = "pqjax/protocols/compare.py", "pqjax/protocols/resize.py"
_CIRCUIT, _SATURATE = "pqjax/protocols/circuit.py", "pqjax/protocols/saturate.py"
_TRANSFER, _LAYOUT = "pqjax/linear/by_ot_transfer.py", "pqjax/linear/by_ot_layout.py"
_AHEAD = "pqjax/linear/ahead.py"
_HE_FILES = (
    "sampling",
    "matrix",
    "secret",
    "hint",
    "shares",
    "version",
    "exchange",
    "resharing",
    "bilinear",
)
_HE = {name: f"pqjax/he/{name}.py" for name in _HE_FILES}
_RUN = "pqjax/engine/execute.py"
_INPUT = "pqjax/layers/input.py"

_BARE_TABLES = (
    Edit(
        _CORR, "words = (tables[span] ^ pads).astype(ring.dtype)",
        "words = tables[span].astype(ring.dtype)",
    ),
    Edit(
        _CORR, "(words & words.dtype.type((1 << t) - 1)).astype(np.uint8) ^ pads",
        "(words & words.dtype.type((1 << t) - 1)).astype(np.uint8)",
    ),
)  # fmt: skip

MUTANTS = (
    # Randomness.
    _one(
        "randomness keyed by a constant", SECRETS, _PRG,
        "super().__init__(os.urandom(BLOCK_BYTES) if key is None else key)",
        "super().__init__(bytes(BLOCK_BYTES) if key is None else key)",
    ),
    _one(
        "a stream that does not advance", SECRETS, _PRG,
        "start, self._next = self._next, self._next + n", "start = self._next",
    ),
    _one(
        "masks of half the ring", _views("mux and chosen"), _PRG,
        "return raw & ring.mask", "return raw & (ring.mask >> 1)",
    ),
    # Base OTs and set-up.
    _one(
        "base-OT scalars are short", SECRETS, _BASE,
        "int.from_bytes(randomness.take(48).tobytes(), \"big\")",
        "int.from_bytes(randomness.take(16).tobytes(), \"big\")",
    ),
    _one(
        "base-OT sender's scalar is a constant", SECRETS, _BASE,
        "secret = _scalar(randomness)", "secret = 7",
    ),
    _one(
        "base-OT receiver's scalars are constants", SECRETS, _BASE,
        "scalars = [_scalar(randomness) for _ in choices]",
        "scalars = [7 + i for i, _ in enumerate(choices)]",
    ),
    _one(
        "base-OT receiver has one scalar for all", SECRETS, _BASE,
        "scalars = [_scalar(randomness) for _ in choices]",
        "scalars = [_scalar(randomness)] * len(choices)",
    ),
    _one(
        "tree roots are constants", SECRETS, _SETUP,
        "roots = randomness.take(16 * (_BASE // k)).view(np.uint64).reshape(-1, 2)",
        "roots = np.arange(2 * (_BASE // k), dtype=np.uint64).reshape(-1, 2)",
    ),
    _one(
        "one root for all trees", SECRETS, _SETUP,
        "roots = randomness.take(16 * (_BASE // k)).view(np.uint64).reshape(-1, 2)",
        "roots = np.tile(randomness.take(16).view(np.uint64), (_BASE // k, 1))",
    ),
    Mutant(
        "tree corrections travel unmasked", SECRETS,
        (
            Edit(
                _SETUP, "masked = sums.reshape(_BASE, 2, 2) ^ pairs",
                "masked = sums.reshape(_BASE, 2, 2)",
            ),
            Edit(
                _SETUP, "(raw[np.arange(_BASE), others] ^ known).reshape(-1, k, 2)",
                "raw[np.arange(_BASE), others].reshape(-1, k, 2)",
            ),
        ),
    ),
    _one(
        "delta is a constant", SECRETS, _SETUP,
        "delta = randomness.bits(_BASE)", "delta = np.arange(_BASE, dtype=np.uint8) & 1",
    ),
    _one(
        "delta is zero", SECRETS, _SETUP,
        "delta = randomness.bits(_BASE)", "delta = np.zeros(_BASE, np.uint8)",
    ),
    # Silent OT.
    _one(
        "silent trees have constant roots", SILENT, _SILENT,
        "self._randomness.take(16 * (group.stop - group.start)).view(np.uint64)",
        "np.arange(2 * (group.stop - group.start), dtype=np.uint64)",
    ),
    _one(
        "one root for all silent trees of a group", SILENT, _SILENT,
        "self._randomness.take(16 * (group.stop - group.start)).view(np.uint64)",
        "np.tile(self._randomness.take(16).view(np.uint64), group.stop - group.start)",
    ),
    _one(
        "silent choices are the bare noise", SILENT, _CODE,
        "for i in range(LOCAL):", "for i in range(0):",
    ),
    _one(
        "silent choices are a single seed's, and noise",
        # Of one seed each they look as even as of ten: the code itself has to be held.
        (*SILENT, "tests/ot/test_silent_kernels.py"), _CODE,
        "for i in range(LOCAL):", "for i in range(1):",
    ),
    _one(
        "a silent round takes the seeds that the one before it took", SILENT, _SILENT,
        "        return joined_parts(kept)\n",
        "        self._old = getattr(self, \"_old\", None) or joined_parts(kept)\n"
        "        return self._old\n",
    ),
    _one(
        "silent trees have the same roots in every session", SILENT, _SILENT,
        "roots = Randomness(randomness.block())", "roots = Randomness(bytes(16))",
    ),
    _one(
        "what is grown has the tweaks of what is used", SILENT, _SETUP,
        "_ROWS, _TREES, _ROUNDS = range(3)", "_ROWS, _TREES, _ROUNDS = 0, 1, 0",
    ),
    # The papers' sources.
    _one(
        "KKOT's secret is a constant", SECRETS, _INLINE,
        "secret = randomness.bits(WIDE)", "secret = np.arange(WIDE, dtype=np.uint8) & 1",
    ),
    _one(
        "KKOT's secret is zero", SECRETS, _INLINE,
        "secret = randomness.bits(WIDE)", "secret = np.zeros(WIDE, np.uint8)",
    ),
    # Extension and stores.
    _one(
        "extension columns start anew in every batch", SECRETS, _SOFT,
        "        self._block += blocks\n", "",
    ),
    Mutant(
        "KKOT columns start anew in every batch", SECRETS,
        (
            Edit(
                _KKOT, "u = _draw(self._one, self._block, blocks)\n        self._block += blocks",
                "u = _draw(self._one, self._block, blocks)",
            ),
            Edit(
                _KKOT,
                "q = _draw(self._streams, self._block, blocks)\n        self._block += blocks",
                "q = _draw(self._streams, self._block, blocks)",
            ),
        ),
    ),
    _one(
        "inline choices travel unmasked", OTS, _SOFT,
        "np.bitwise_xor(u, pack_choices(choices, u.shape[1]), out=u)",
        "u[...] = pack_choices(choices, u.shape[1])",
    ),
    _one(
        "KKOT choices are masked by one column alone", OTS, _KKOT,
        "np.bitwise_xor(u, t, out=u)", "u[...] = t",
    ),
    _one(
        "stored choice bits are zero", OTS, _SOFT,
        'choices = np.unpackbits(u[0], count=n, bitorder="little")',
        "choices = np.zeros(n, np.uint8)",
    ),
    _one(
        "stocked choices travel unmasked", OTS, _STOCKED,
        'return rows, np.packbits(choices ^ bits, bitorder="little")',
        'return rows, np.packbits(choices, bitorder="little")',
    ),
    _one(
        "a stock keeps the rows it hands out", SECRETS, "pqjax/ot/stock.py",
        "self._parts.appendleft((rows[n:], bits[n:]))",
        "self._parts.appendleft((rows, bits))",
    ),
    # Pads.
    _one(
        "tweaks do not advance", HASH, _HASH,
        "            self._next += n * each\n", "",
    ),
    _one(
        "tweaks come again after 2^26", HASH, _HASH,
        "            self._next += n * each\n",
        "            self._next = (self._next + n * each) % (1 << 26)\n",
    ),
    _one(
        "every round counts its tweaks anew", SILENT, _SILENT,
        "RoundSender(noise, seeds, self._delta, self._rounds_hash)",
        "RoundSender(noise, seeds, self._delta, __import__(\"copy\").copy(self._rounds_hash))",
    ),
    _one(
        "one tweak for all blocks of a row", HASH, _HASH,
        "counter[:, :, 0] = first.reshape(rows, blocks)",
        "counter[:, :, 0] = first[::blocks, None]",
    ),
    Mutant(
        "a chosen message travels unmasked", _views("mux and chosen"),
        (
            Edit(_CORR, "ring.reduce(second ^ one)]", "ring.reduce(second)]"),
            Edit(
                _CORR,
                "Ring(bits).reduce(key ^ jnp.where(choice[:, None] != 0, both[:, 1], both[:, 0]))",
                "Ring(bits).reduce(jnp.where(choice[:, None] != 0, both[:, 1], key ^ both[:, 0]))",
            ),
        ),
    ),
    _one(
        "both messages under one pad", OTS, _HASH,
        "hash_blocks(x[span], tweaks, one[span], offset=offset)",
        "hash_blocks(x[span], tweaks, one[span])",
    ),
    _one(
        "all sessions have one hash key", (*HASH, *OTS), _HASH,
        "\"little\") + transcript)", "\"little\"))",
    ),
    _one(
        "the hash key never changes", HASH, _HASH,
        "key.update(era.to_bytes(8, \"little\"))", "key.update(bytes(8))",
    ),
    _one(
        "both directions hash alike", OTS, _SETUP,
        "return Hash(transcript, 3 * sender + use)", "return Hash(b\"\", use)",
    ),
    _one(
        "a base OT's point may be the identity", OTS, _BASE, "if not any(raw):", "if False:",
    ),
    Mutant("tables travel unmasked", _views("less and inline"), _BARE_TABLES),
    Mutant(
        "stored tables are masked by their first entry alone", _views("less and stocked"),
        _BARE_TABLES,
    ),
    _one(
        "the masks of tables are zero", _views("less and inline"), _CORR,
        "party.randomness.bits(n * t).reshape(n, t)", "np.zeros((n, t), np.uint8)",
    ),
    _one(
        "all tables have one mask", _views("less and inline"), _CORR,
        "party.randomness.bits(n * t).reshape(n, t)",
        "np.repeat(party.randomness.bits(t)[None], n, 0)",
    ),
    _one(
        "the masks of a table's entries are alike", _views("less and inline"), _CORR,
        "party.randomness.bits(n * t).reshape(n, t)",
        "np.repeat(party.randomness.bits(n)[:, None], t, 1)",
    ),
    # Triples and openings.
    _one(
        "the sender's triple operands are zero", _views("[and-"), _TRIPLES,
        "own = randomness.bits(4 * triple_picks(n)).reshape(-1, 4)\n    return _PRODUCTS",
        "own = np.zeros((triple_picks(n), 4), np.uint8)\n    return _PRODUCTS",
    ),
    _one(
        "the receiver's triple operands are zero", _views("[and-"), _TRIPLES,
        "own = randomness.bits(4 * triple_picks(n)).reshape(-1, 4)\n    return own",
        "own = np.zeros((triple_picks(n), 4), np.uint8)\n    return own",
    ),
    _one(
        "both triples of an OT share operands", _views("[and- or [less"), _TRIPLES,
        "own = randomness.bits(4 * triple_picks(n)).reshape(-1, 4)\n    return _PRODUCTS",
        "own = np.tile(randomness.bits(2 * triple_picks(n)).reshape(-1, 2), (1, 2))\n"
        "    return _PRODUCTS",
    ),
    _one(
        "every round of a circuit spends the same triples", _views("less and 9 and inline"),
        _CIRCUIT, "slice(len(group), None)", "slice(0, None)",
    ),
    _one(
        "all factors of a product have one mask", _views("saturate and stocked"), _TRIPLES,
        "at = np.uint8(i)", "at = np.uint8(0)",
    ),
    Mutant(
        "a circuit's operands are opened as they are", _views("carry"),
        (
            Edit(_CIRCUIT, "self.of(p.x) ^ drawn.a[i] for", "self.of(p.x) for"),
            Edit(_CIRCUIT, ".ys[j]) ^ drawn.b[j, i] for", ".ys[j]) for"),
            Edit(
                _CIRCUIT, "(e & drawn.b[j, i]) ^ (f & drawn.a[i]) ^ drawn.c[j, i]",
                "e & np.uint8(0)",
            ),
        ),
    ),
    Mutant(
        "ANDs are opened without the triple", _views("[and-"),
        (
            Edit(
                _COMPARE, "masked = np.concatenate([x ^ a, y ^ b])",
                "masked = np.concatenate([x, y])",
            ),
            Edit(_COMPARE, "own = (e & b) ^ (f & a) ^ c", "own = c & np.uint8(0)"),
        ),
    ),
    # One pass.
    Mutant(
        "a pass offers its bits and kept bits unmasked", _views("saturate"),
        (
            Edit(_SATURATE, "got = [-pad for pad in zero]", "got = [0 * pad for pad in zero]"),
            Edit(_SATURATE, "(x + z - o for x, z, o", "(x + 0 * z for x, z, _"),
            Edit(_SATURATE, "[key[:, 0] + bit", "[0 * key[:, 0] + bit"),
        ),
    ),
    Mutant(
        "a pass answers with its kept bits unmasked", _views("saturate"),
        (
            Edit(
                _SATURATE, "ring.reduce(zero + correlation - one), ring.reduce(share - zero)",
                "ring.reduce(correlation), ring.reduce(share)",
            ),
            Edit(_SATURATE, "correlated_rows(own, key, reply", "correlated_rows(own, 0 * key, reply"),
        ),
    ),
    # Multiplexers and products.
    _one(
        "the multiplexer's mask is zero", _views("chosen"), _RESIZE,
        "mask = party.randomness.elements(x.size, ring)", "mask = np.zeros(x.size, ring.dtype)",
    ),
    _one(
        "the multiplexer's mask is one for all rows", _views("mux and chosen"), _RESIZE,
        "mask = party.randomness.elements(x.size, ring)",
        "mask = np.repeat(party.randomness.elements(1, ring), x.size)",
    ),
    _one(
        "the product's mask is zero", _views("product or grouped"), _TRANSFER,
        "blind = party.randomness.elements(math.prod(piece.shape), ring).reshape(piece.shape)",
        "blind = np.zeros(piece.shape, ring.dtype)",
    ),
    _one(
        "outputs of a product share a mask", _views("product"), _TRANSFER,
        "blind = party.randomness.elements(math.prod(piece.shape), ring).reshape(piece.shape)",
        "blind = np.repeat(party.randomness.elements(math.prod(piece.shape[:-1]), ring),"
        " piece.shape[-1]).reshape(piece.shape)",
    ),
    _one(
        "all products share a mask", _views("grouped"), _TRANSFER,
        "blind = party.randomness.elements(math.prod(piece.shape), ring).reshape(piece.shape)",
        "blind = np.full(piece.shape, party.randomness.elements(1, ring)[0])",
    ),
    _one(
        "pixels of a product share a mask", _views("product"), _TRANSFER,
        "blind = party.randomness.elements(math.prod(piece.shape), ring).reshape(piece.shape)",
        "blind = np.broadcast_to(party.randomness.elements(math.prod(piece.shape[2:]), ring)"
        ".reshape(piece.shape[2:]), piece.shape)",
    ),
    _one(
        "outputs of a product share a pad", _views("product and choose-x"), _LAYOUT,
        "found = words[:, : self.words].reshape",
        "found = words[:, :1].repeat(self.words, 1).reshape",
    ),
    _one(
        "taps share a pad", _views("grouped"), _LAYOUT,
        "(tap.slot, rows, columns))", "(0, rows, columns))",
    ),
    # Linear layers over RLWE.
    _one(
        "ternary coefficients are biased", RLWE, _HE["sampling"],
        "raw = randomness.take(math.ceil(short + _EXTRA * math.sqrt(short)))",
        "raw = randomness.take(math.ceil(short + _EXTRA * math.sqrt(short))) % 243",
    ),
    _one(
        "ternary coefficients come in pairs", RLWE, _HE["sampling"],
        "return _DIGITS[found[:wanted]].reshape(-1)",
        "return _DIGITS[found[:wanted]].repeat(2, 0).reshape(-1)",
    ),
    _one(
        "errors are zero", RLWE, _HE["sampling"],
        "coins = randomness.take(8 * n * degree).view(np.uint64)",
        "coins = np.full(n * degree, (1 << 21) - 1, np.uint64)",
    ),
    _one(
        "errors of all polynomials are one", RLWE, _HE["sampling"],
        "coins = randomness.take(8 * n * degree).view(np.uint64)",
        "coins = np.tile(randomness.take(8 * degree).view(np.uint64), n)",
    ),
    _one(
        "all layers share public polynomials", RLWE, _HE["matrix"],
        "self.seed + self.name.encode()", "self.seed",
    ),
    _one(
        "all models share public polynomials", RLWE, _HE["matrix"],
        "self.seed + self.name.encode()", "self.name.encode()",
    ),
    _one(
        "a secret is a constant", RLWE, _HE["secret"],
        "self._s = ternary(1, modulus.degree, randomness)",
        "self._s = ternary(1, modulus.degree, Randomness(bytes(16)))",
    ),
    _one(
        "a secret is zero", RLWE, _HE["secret"],
        "self._s = ternary(1, modulus.degree, randomness)",
        "self._s = 0 * ternary(1, modulus.degree, randomness)",
    ),
    _one(
        "a secret may meet a matrix twice", RLWE, _HE["secret"],
        "self._met.add(matrix.name)", "pass",
    ),
    _one(
        "ciphertexts have no errors", RLWE, _HE["secret"],
        "ring.reduce(noise - hidden", "ring.reduce(0 * noise - hidden",
    ),
    _one(
        "inputs are sent without masks", RLWE, _HE["shares"],
        "Ring(own.sent_bits).reduce(scaled + masks)", "Ring(own.sent_bits).reduce(scaled + 0 * masks)",
    ),
    Mutant(
        "hints are made without u", RLWE,
        (
            Edit(
                _HE["hint"],
                "found = found + product(", "found = found + 0 * product(",
            ),
            Edit(
                _HE["hint"], "coefficients(public, self.u, at, bits)",
                "0 * coefficients(public, self.u, at, bits)",
            ),
        ),
    ),
    _one(
        "one u for all rows of a hint", RLWE, _HE["hint"],
        "ternary(tiling.hints, tiling.degree, randomness)",
        "ternary(1, tiling.degree, randomness).repeat(tiling.hints, 0)",
    ),
    _one(
        "u is a constant", RLWE, _HE["hint"],
        "ternary(tiling.hints, tiling.degree, randomness)",
        "ternary(tiling.hints, tiling.degree, Randomness(bytes(16)))",
    ),
    _one(
        "hints have no errors", RLWE, _HE["hint"],
        "        found += errors(tiling.hints, modulus.degree, randomness).astype(np.uint64)\n", "",
    ),
    _one(
        "keys that merge hints have no masks", MERGING, _HE["secret"],
        "self.masks(level.matrix(self._modulus, seed)) + own",
        "0 * self.masks(level.matrix(self._modulus, seed)) + own",
    ),
    _one(
        "keys of all depths share public polynomials", MERGING, _HE["matrix"],
        'f"{_KEY}{depth}"', "_KEY",
    ),
    Mutant(
        "merged hints are made without u", MERGING,
        (
            Edit(_HE["hint"], "found = found + product(", "found = found + 0 * product("),
            Edit(
                _HE["hint"], "coefficients(public, self.u, at, bits)",
                "0 * coefficients(public, self.u, at, bits)",
            ),
        ),
    ),
    _one(
        "all inferences have the same secrets", BY_RLWE, _KEYS,
        "Secret(STATIC, party.randomness)", "Secret(STATIC, type(party.randomness)(bytes(16)))",
    ),
    _one(
        "all tiles have the same secret", BY_RLWE, _KEYS,
        "tuple(Secret(STATIC, party.randomness) for _ in range(wanted.count))",
        "(Secret(STATIC, party.randomness),) * wanted.count",
    ),
    _one(
        "all layers have the same u", BY_RLWE, _HE["version"],
        "hashlib.sha256(self.key + text)", "hashlib.sha256(self.key)",
    ),
    _one(
        "all versions have the same u", BY_RLWE, _HE["version"],
        "hashlib.sha256(self.key + text)", "hashlib.sha256(text)",
    ),
    _one(
        "all versions have the same seed and key", BY_RLWE, _HE["version"],
        "cls(randomness.block(), randomness.block())", "cls(bytes(16), bytes(16))",
    ),
    _one(
        "a key is anybody's to read", ("tests/engine/test_hints.py",), "pqjax/engine/hints.py",
        "memoryview(key), 0o600", "memoryview(key), 0o644",
    ),
    _one(
        "a stored half is read and left there", STORE, "pqjax/engine/store.py",
        "path.unlink()  # one process", "path.stat()  # one process",
    ),
    _one(
        "stored halves are anybody's to read", STORE, "pqjax/engine/store.py",
        "os.O_EXCL, 0o600)", "os.O_EXCL, 0o644)",
    ),
    _one(
        "copies of a stored half are as good", STORE, "pqjax/engine/store.py",
        "ino.to_bytes(8, \"little\")\n", "bytes(8)\n",
    ),
    _one(
        "nobody's proof is looked at", STORE, _SPENDING,
        "if not same(shown, self._proof(step, bits)):", "if False:",
    ),
    _one(
        "a proof is good for every greeting", STORE, _SPENDING,
        "self._batch.name, self._nonces, *what", "self._batch.name, *what",
    ),
    _one(
        "OTs set aside are hashed as the session's", STORE, _HASH,
        "return Hash(made.digest(), self._domain)", "return Hash(self.transcript, self._domain)",
    ),
    _one(
        "files are sealed under a key that anybody has", ("tests/crypto/test_sealed.py",),
        "pqjax/crypto/sealed.py",
        "hmac.digest(master, b", "hmac.digest(b\"\", b",
    ),
    _one(
        "all files are sealed under the same key", ("tests/crypto/test_sealed.py",),
        "pqjax/crypto/sealed.py", "    salt = fresh_key()", "    salt = bytes(KEY_BYTES)",
    ),
    _one(
        "guard bits are read as they are", ("tests/graph/test_guard.py",), "pqjax/graph/validate.py",
        "if most and not (node.keeps_guard or node.drops_guard):", "if False:",
    ),
    _one(
        "inputs of two-way layers are sent without masks", REPLY, _HE["exchange"],
        "ring.reduce(scaled + masks)", "ring.reduce(scaled + 0 * masks)",
    ),
    _one(
        "replies are sent without masks", REPLY, _HE["resharing"],
        "uniform = randomness.elements(phase.size, Ring(b0))",
        "uniform = 0 * randomness.elements(phase.size, Ring(b0))",
    ),
    _one(
        "masks of replies repeat", REPLY, _HE["resharing"],
        "uniform = randomness.elements(phase.size, Ring(b0))",
        "uniform = np.tile(randomness.elements(phase.size // 2, Ring(b0)), 2)",
    ),
    _one(
        "flooded replies are sent without masks", REPLY, _HE["resharing"],
        "drawn = randomness.elements(phase.size, Ring(p))",
        "drawn = 0 * randomness.elements(phase.size, Ring(p))",
    ),
    _one(
        "masks of the message are sent without flooding", REPLY, _HE["resharing"],
        "flood = randomness.elements(phase.size, Ring(own.flood_bits + 1))",
        "flood = np.full(phase.size, 1 << own.flood_bits)",
    ),
    Mutant(
        "replies are made without u", REPLY,
        (
            Edit(_HE["exchange"], "        hidden = product(", "        hidden = 0 * product("),
            Edit(_HE["exchange"], "        zeros = product(", "        zeros = 0 * product("),
        ),
    ),
    _one(
        "one u for all polynomials of a reply", REPLY, _HE["exchange"],
        "u = ternary(self.parcels * t.hints, self.degree, randomness)",
        "u = ternary(1, self.degree, randomness).repeat(self.parcels * t.hints, 0)",
    ),
    _one(
        "u of a reply is a constant", REPLY, _HE["exchange"],
        "u = ternary(self.parcels * t.hints, self.degree, randomness)",
        "u = ternary(self.parcels * t.hints, self.degree, Randomness(bytes(16)))",
    ),
    _one(
        "replies have no errors", REPLY, _HE["exchange"],
        "hidden += errors(len(u), self.degree, randomness)",
        "hidden += 0 * errors(len(u), self.degree, randomness)",
    ),
    _one(
        "all layers with a reply have one seed", BY_REPLY, _KEYS,
        "seed, secret = party.randomness.block(),", "seed, secret = bytes(16),",
    ),
    _one(
        "all layers with a reply have one secret", BY_REPLY, _KEYS,
        "Secret(modulus, party.randomness)", "Secret(modulus, type(party.randomness)(bytes(16)))",
    ),
    _one(
        "what hides replies is a constant", BY_REPLY, _BY_REPLY,
        "ready.public, matrix, x, party.randomness)",
        "ready.public, matrix, x, type(party.randomness)(bytes(16)))",
    ),
    Mutant(
        "products are answered without u", BILINEAR,
        (
            Edit(_HE["bilinear"], "        hidden = product(", "        hidden = 0 * product("),
            Edit(_HE["bilinear"], "        zeros = product(", "        zeros = 0 * product("),
        ),
    ),
    _one(
        "one u for all blocks of a product", BILINEAR, _HE["bilinear"],
        "u = ternary(self.replies, self.degree, randomness)",
        "u = ternary(1, self.degree, randomness).repeat(self.replies, 0)",
    ),
    _one(
        "u of a product is a constant", BILINEAR, _HE["bilinear"],
        "u = ternary(self.replies, self.degree, randomness)",
        "u = ternary(self.replies, self.degree, Randomness(bytes(16)))",
    ),
    _one(
        "answers to products have no errors", BILINEAR, _HE["bilinear"],
        "hidden += errors(len(u), self.degree, randomness)",
        "hidden += 0 * errors(len(u), self.degree, randomness)",
    ),
    _one(
        "sums of products are sent without masks", BILINEAR, _HE["bilinear"],
        "c0, share = mask(phase, own, randomness)",
        "c0, share = rounded(phase, k, own.c0_bits), 0 * phase + np.uint64(own.guard)",
    ),
    _one(
        "all sums of products have one mask", BILINEAR, _HE["bilinear"],
        "c0, share = mask(phase, own, randomness)",
        "c0, share = mask(phase, own, Randomness(bytes(16)))",
    ),
    _one(
        "operands of products are sent unmasked", BILINEAR, _HE["bilinear"],
        "scaled + secret.masks(matrix)", "scaled + 0 * secret.masks(matrix)",
    ),
    _one(
        "what hides products is a constant", PRODUCTS, _BY_PRODUCTS,
        "matrix, *pair, party.randomness)", "matrix, *pair, type(party.randomness)(bytes(16)))",
    ),
    _one(
        "all products have one seed", PRODUCTS, _KEYS,
        "seed, secret = party.randomness.block(), Secret(modulus, party.randomness)",
        "seed, secret = bytes(16), Secret(modulus, party.randomness)",
    ),
    _one(
        "all heads of a product have one matrix", PRODUCTS, _BY_PRODUCTS,
        "matrix = at.matrix(ready.seed, str(head))\n                sent = at.encrypt",
        "matrix = at.matrix(ready.seed, \"0\")\n                sent = at.encrypt",
    ),
    # Whole runs.
    _one(
        "what the client draws ahead is zero", RUNS, _AHEAD,
        "drawn = party.randomness.elements(job.map.pixels, Ring(job.bits)).reshape(job.map.in_shape)",
        "drawn = np.zeros(job.map.in_shape, Ring(job.bits).dtype)",
    ),
    _one(
        "what the client draws ahead is one for all pixels", RUNS, _AHEAD,
        "drawn = party.randomness.elements(job.map.pixels, Ring(job.bits)).reshape(job.map.in_shape)",
        "drawn = np.full(job.map.in_shape, party.randomness.elements(1, Ring(job.bits))[0])",
    ),
    Mutant(
        "operands are sent unmasked", RUNS,
        (
            Edit(
                _AHEAD, "party.messenger.send_elements(ring.sub(x, ready.drawn), ring)",
                "party.messenger.send_elements(x, ring)",
            ),
            Edit(_AHEAD, "return ready.share", "return np.zeros_like(ready.share)"),
            Edit(_AHEAD, "ring.add(ready.share, multiply", "ring.add(0, multiply"),
        ),
    ),
    _one(
        "the input's mask is zero", RUNS, _INPUT,
        "mask = party.randomness.elements(n, ring).reshape(shape)",
        "mask = np.zeros(shape, ring.dtype)",
    ),
    _one(
        "the input's mask is one for all pixels", RUNS, _INPUT,
        "mask = party.randomness.elements(n, ring).reshape(shape)",
        "mask = np.full(shape, party.randomness.elements(1, ring)[0])",
    ),
    _one(
        "the wrong share of the input is sent", RUNS, _INPUT,
        "        party.messenger.send_elements(theirs, ring)\n",
        "        party.messenger.send_elements(ring.reduce(own), ring)\n",
    ),
    _one(
        "the server reveals what is not its share", RUNS, _RUN,
        "        party.messenger.send_elements(share, ring)\n",
        "        party.messenger.send_elements(ring.neg(share), ring)\n",
    ),
    _one(
        "a sender rests while its receiver waits for it", ("tests/ot/test_making.py",),
        "pqjax/ot/silent.py", "Maker(self.stock, MOST_OFFERED)", "Maker(self.stock)",
    ),
    _one(
        "a question waits for all that is prepared ahead", AHEAD, "pqjax/engine/background.py",
        "while not self._called.is_set() and piece():", "while piece():",
    ),
    _one(
        "what fails between two calls is never told", AHEAD, "pqjax/engine/background.py",
        "        if failure is not None:\n", "        if False:\n",
    ),
    _one(
        "who is done is taken for one who left", AHEAD, "pqjax/engine/session.py",
        "wire.leave(Word.DONE)", "wire.leave(Word.LEFT)",
    ),
    _one(
        "a preparation that was broken off stays in the books", AHEAD, "pqjax/engine/commands.py",
        "        entry.inference = None\n", "        pass\n",
    ),
    _one(
        "a preparation can be used twice", ("tests/engine/test_networks.py", "-k", "once"), _RUN,
        "return self._ready.pop(name)", "return self._ready[name]",
    ),
    _one(
        "every ticket is the same", TICKETS, _TICKETS,
        "ticket = os.urandom(TICKET_BYTES)", "ticket = bytes(TICKET_BYTES)",
    ),
    _one(
        "a ticket can be used twice", TICKETS, _TICKETS,
        "            del self._issued[_hashed(ticket)]\n", "",
    ),
    _one(
        "a ticket is good for anybody", TICKETS, _TICKETS, "if whose != owner:", "if whose is None:",
    ),
    _one(
        "a ticket is good for ever", TICKETS, _TICKETS, "if now < self._issued[oldest][1]:", "if now:",
    ),
    _one(
        "answers of a day have no end", DESK, _DESK,
        "            if self._spent(owner, count):\n", "            if False:\n",
    ),
    _one(
        "who has had all answers begins again", DESK, _DESK,
        "            if self._spent(owner, 1):\n", "            if False:\n",
    ),
    _one(
        "nobody asks whether a client may have an answer", LIMITED, "pqjax/engine/worker.py",
        "            if not visit.permit(plan.batch):\n", "            if False:\n",
    ),
    _one(
        "the background stays when others come", DESK, _DESK,
        "        if others:\n            self._go()\n", "",
    ),
    _one(
        "a session in the background goes on beside others", LIMITED, "pqjax/engine/server.py",
        "            visit.finish(Word.YIELD)\n", "            pass\n",
    ),
    _one(
        "a ticket holds no seat", REPLICA, "pqjax/fleet/replica.py",
        "        owners = self._tickets.owners\n", "        owners = type(front.owners)()\n",
    ),
)  # fmt: skip


def unfit(edit: Edit, root: pathlib.Path = ROOT) -> str | None:
    """Why an edit cannot be made; None if its text occurs exactly once."""
    found = (root / edit.file).read_text().count(edit.old)
    return None if found == 1 else f"{edit.file}: found {found} times, not once: {edit.old!r}"


def _copy(to: pathlib.Path) -> None:
    """What tests need of the tree; large folders that no mutant touches are linked."""
    for folder in ("pqjax", "tests"):
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.name not in ("pqjax", "tests") and not path.name.startswith("."):
            (to / path.name).symlink_to(path)


def try_mutant(mutant: Mutant, every: bool = False, most: int = 3) -> tuple[str, list[str]]:
    """Runs the tests against a mutant: "noticed", "survived" or what went wrong, and who noticed."""
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder)
        _copy(tree)
        for edit in mutant.edits:
            reason = unfit(edit, tree)
            if reason:
                return f"does not fit: {reason}", []
            path = tree / edit.file
            path.write_text(path.read_text().replace(edit.old, edit.new))
        tests = FAST if every else mutant.tests
        command = [
            sys.executable, "-m", "pytest", "-q", "-rfE", "--no-header", "-p", "no:cacheprovider",
            f"--maxfail={most}", "--tb=no", *tests,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        try:
            run = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True,
                timeout=DEADLINE_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"hangs: no end after {DEADLINE_S:.0f} s", []
    failed = [
        text.split(" ", 1)[1].split(" - ")[0] for text in run.stdout.splitlines()
        if text.startswith(("FAILED ", "ERROR "))
    ]  # fmt: skip
    if run.returncode == 0:
        return "survived", []
    if run.returncode == 1 and failed:
        return "noticed", failed
    return f"pytest ended with {run.returncode}: {run.stdout[-500:]} {run.stderr[-500:]}", []


def main(arguments: list[str] | None = None) -> int:
    """Tries mutants and prints who noticed; 1 if any was not noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="mutants; all by default")
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--all", action="store_true", help="ask all fast tests")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}; see --list")
    chosen = [m for m in MUTANTS if not options.names or m.name in options.names]
    if options.list:
        print("\n".join(mutant.name for mutant in chosen))
        return 0
    unnoticed = 0
    for mutant in chosen:
        outcome, failed = try_mutant(mutant, options.all)
        unnoticed += outcome != "noticed"
        print(
            f"{mutant.name}: {outcome}", *(f"    {test}" for test in failed), sep="\n", flush=True
        )
    print(f"{len(chosen) - unnoticed} of {len(chosen)} mutants noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
