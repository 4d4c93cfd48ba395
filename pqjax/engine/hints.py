"""Hints of a whole plan: made once for a version of a model, the same for all clients, kept in files.

A file of hints is public: nothing in it depends on a client, and it tells nothing of the weights. Its
name, `<digest>.hint`, is the digest of what it holds:

    8 bytes   magic
    32        digest of the plan that it belongs to
    16        seed of the model's public polynomials
    then      every layer's hint, in the plan's order, hint_bits a coefficient

Beside it the server keeps `<model>.key`, a secret: what makes u and e1 again (`pqjax.he.Version`).
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from pqjax.errors import CheckpointError
from pqjax.graph.ir import Weights
from pqjax.he import Version
from pqjax.planner.plan import Plan

MAGIC = b"pqhint 1"
_KEY_MAGIC = b"pqkey  1"
DIGEST_BYTES, SEED_BYTES = 32, 16
_HEADER = len(MAGIC) + DIGEST_BYTES + SEED_BYTES
Packed = UInt8[np.ndarray, " bytes"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Hints:
    """A plan's hints.

    Attributes:
      whole: what the file holds, header included.
      digest: SHA-256 of it.
    """

    whole: Packed
    digest: bytes

    @classmethod
    def of(cls, whole: Packed) -> "Hints":
        """Of what a file holds."""
        return cls(whole, hashlib.sha256(whole.data).digest())

    @property
    def seed(self) -> bytes:
        """Of the model's public polynomials."""
        return self.whole[_HEADER - SEED_BYTES : _HEADER].tobytes()

    def by_layer(self, plan: Plan) -> dict[str, Packed]:
        """Every layer's own."""
        return {name: self.whole[part] for name, part in places(plan).items()}

    def check(self, plan: Plan, where: str) -> None:
        """Refuses what is no file of hints, or one for another plan.

        Raises:
          CheckpointError: says which.
        """
        size, head = hint_bytes(plan), header(plan, bytes(SEED_BYTES))[:-SEED_BYTES]
        if self.whole[: len(MAGIC)].tobytes() != MAGIC:
            raise CheckpointError(f"{where} is no file of hints, or one of another version")
        if self.whole[: len(head)].tobytes() != head:
            raise CheckpointError(f"{where} holds hints for another plan: make them for this one")
        if self.whole.size != size:
            raise CheckpointError(
                f"{where} is cut off: {size} bytes expected, {self.whole.size} there"
            )


def header(plan: Plan, seed: bytes) -> bytes:
    """What a file begins with."""
    return MAGIC + plan.digest + seed


def places(plan: Plan) -> dict[str, slice]:
    """Where every layer's hint lies in a file."""
    found, at = {}, _HEADER
    for step in plan.hinted:
        found[step.node.name] = slice(at, at + step.cost.install.bits // 8)
        at = found[step.node.name].stop
    return found


def hint_bytes(plan: Plan) -> int:
    """Size of a file of hints."""
    return max((part.stop for part in places(plan).values()), default=0)


def read_hints(path: pathlib.Path, plan: Plan) -> Hints:
    """The hints in a file, checked against a plan.

    Raises:
      CheckpointError: it cannot be read, is truncated, altered, or for another plan.
    """
    found = Hints.of(_mapped(path))
    found.check(plan, str(path))
    if path.suffix == ".hint" and len(path.stem) == 2 * DIGEST_BYTES:
        if path.stem != found.digest.hex():
            raise CheckpointError(f"{path} is altered: it holds other bytes than its name says")
    return found


def _mapped(path: pathlib.Path) -> Packed:
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read hints from {path}: {error}") from error


class HintFolder:
    """A folder in which a client keeps hints from session to session, by digest."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def find(self, digest: bytes, plan: Plan) -> Hints | None:
        """Hints of that digest; None where there are none. A damaged file is dropped."""
        path = self._path(digest)
        if not path.exists():
            return None
        try:
            return read_hints(path, plan)
        except CheckpointError:
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def __str__(self) -> str:
        return str(self._folder)

    @contextlib.contextmanager
    def part(self, digest: bytes) -> Iterator[pathlib.Path]:
        """Where hints of that digest are collected; an earlier part of them may be there.

        Another process that collects the same ones has a file of its own.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(digest).with_suffix(".part")
        with open(path, "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path
            except BlockingIOError:
                own = path.with_suffix(f".{os.getpid()}.part")
                try:
                    yield own
                finally:
                    own.unlink(missing_ok=True)  # nobody else would go on with it

    def keep(self, part: pathlib.Path, digest: bytes) -> None:
        """Gives what was collected, and has that digest, its name."""
        os.replace(part, self._path(digest))

    def _path(self, digest: bytes) -> pathlib.Path:
        return self._folder / f"{digest.hex()}.hint"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)  # a key
class Made:
    """What a server has of its hints: the version that they are of, their digest, and the hints.

    These are None where only the key is left: it makes the same ones again.
    """

    version: Version
    digest: bytes
    hints: Hints | None


def weights_digest(weights: Weights) -> bytes:
    """Which weights they are. Secret: a guess of them could be confirmed by it."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = np.ascontiguousarray(weights[name])
        found.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        found.update(value.data.cast("B"))
    return found.digest()


def find_made(folder: pathlib.Path, plan: Plan, weights: Weights) -> Made | None:
    """What a folder keeps for a plan with these weights; None where nothing.

    Raises:
      CheckpointError: files are truncated, altered, or belong to something else.
    """
    path = _key_path(folder, plan, weights)
    if not path.exists():
        return None
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    ask = "delete it, and hints are made anew"
    body, checksum = raw[:-DIGEST_BYTES], raw[-DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != checksum or not body.startswith(_KEY_MAGIC):
        raise CheckpointError(f"{path} is cut off or altered: {ask}")
    at, found = len(_KEY_MAGIC), []
    for size in (DIGEST_BYTES, DIGEST_BYTES, SEED_BYTES, SEED_BYTES, DIGEST_BYTES):
        found.append(body[at : at + size])
        at += size
    planned, weighed, seed, key, digest = found
    if (planned, weighed) != (plan.digest, weights_digest(weights)):
        raise CheckpointError(f"{path} belongs to another plan or other weights: {ask}")
    version, place = Version(seed, key), folder / f"{digest.hex()}.hint"
    if not place.exists():
        return Made(version, digest, None)
    try:
        return Made(version, digest, read_hints(place, plan))
    except CheckpointError as error:
        raise CheckpointError(f"{error}: delete it, and the same hints are made again") from error


def keep_made(
    folder: pathlib.Path, plan: Plan, weights: Weights, version: Version, hints: Hints
) -> None:
    """Writes both files: the hints, and the key for their owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    body = _KEY_MAGIC + plan.digest + weights_digest(weights)
    body += version.seed + version.key + hints.digest
    _write(hint_path(folder, hints), hints.whole.data, 0o644)
    key = body + hashlib.sha256(body).digest()
    _write(_key_path(folder, plan, weights), memoryview(key), 0o600)


def hint_path(folder: pathlib.Path, hints: Hints) -> pathlib.Path:
    """Where hints lie in a folder."""
    return folder / f"{hints.digest.hex()}.hint"


def _key_path(folder: pathlib.Path, plan: Plan, weights: Weights) -> pathlib.Path:
    both = hashlib.sha256(plan.digest + weights_digest(weights)).hexdigest()
    return folder / f"{both[:32]}.key"


def _write(path: pathlib.Path, data: memoryview, mode: int) -> None:
    """The whole file or none; private from its first byte where it is to be."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    os.replace(part, path)
