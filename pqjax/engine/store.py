"""Prepared inferences on a disk: one party's halves, encrypted, each used once.

    DIR/key              32 random bytes, for the owner alone: what opens everything below
    DIR/lock
    DIR/<batch>-<owner>/head       what both sides know of a batch: a key, which proves that one holds it
    DIR/<batch>-<owner>/<n>.half   this party's half of its n-th preparation (`pqjax.engine.half`)

A half is claimed by unlinking it, which one process alone can do, once. Only when that is on the disk is
it read: whatever happens afterwards, nobody finds it again. A file is bound to its place (batch, number,
plan, and the number of its inode), so that copies of it are worth nothing.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import stat
import time
from collections.abc import Iterator

from pqjax.crypto.sealed import KEY_BYTES, SEALED_BYTES, fresh_key, proof, seal, unseal
from pqjax.errors import CheckpointError, StoreError

NAME_BYTES = 16
MOST_IN_BATCH = 64
MOST_BYTES, MOST_BYTES_EACH = 16 << 30, 4 << 30
DAYS = 30.0
_MAGIC = b"pqstore 1"
_DIGEST_BYTES = 32
_BLOCK_BYTES = 4096  # a file takes at least so much
_DAY_S = 86400.0


@dataclasses.dataclass(frozen=True, repr=False)  # a key
class Batch:
    """Preparations that two parties made together.

    Attributes:
      name: of this batch alone.
      key: both know it and nobody else.
      about: 32 bytes: whatever must be as it was when they were made.
    """

    name: bytes
    key: bytes
    about: bytes


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a store takes: bytes in all and of one owner, and the days after which batches go."""

    most_bytes: int = MOST_BYTES
    most_bytes_each: int = MOST_BYTES_EACH
    days: float = DAYS


class Store:
    """One party's folder. Any number of processes may use it side by side.

    Raises:
      StoreError: the folder cannot be used, or its key is somebody else's to read.
    """

    def __init__(self, folder: pathlib.Path | str, limits: Limits = Limits()):  # noqa: B008 (frozen)
        self.folder, self._limits = pathlib.Path(folder), limits
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.locked():
                self._key = self._own_key()
                self._tidy()
        except OSError as error:
            raise StoreError(f"cannot keep preparations in {folder}: {error}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else adds anything, or agrees with the other party on what there is."""
        with open(self.folder / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def batches(self, owner: str) -> list[Batch]:
        """What there is of an owner, the oldest first."""
        found = sorted(self.folder.glob(f"*-{self._tag(owner)}"), key=lambda p: p.stat().st_mtime)
        read = (self._read(place) for place in found)
        return [batch for batch in read if batch is not None]

    def find(self, name: bytes) -> Batch | None:
        """The batch of that name; None where there is none that can be used."""
        place = self._place(name)
        return None if place is None else self._read(place)

    def put(self, batch: Batch, owner: str, number: int, half: bytes) -> None:
        """Keeps a half, and of a batch's first the batch.

        Raises:
          StoreError: there is no room for it, or one in its place.
        """
        place = self.folder / f"{batch.name.hex()}-{self._tag(owner)}"
        with self._writing(place, len(half) + SEALED_BYTES + _BLOCK_BYTES):
            there = self.find(batch.name)
            if number >= MOST_IN_BATCH or (there and (there != batch or not place.exists())):
                raise StoreError("preparations of another batch, or too many in one")
            if there is None:
                place.mkdir(mode=0o700)
                about = _MAGIC + b"head" + batch.name
                _write(place / "head", lambda ino: seal(self._key, about, batch.key + batch.about))
                _settle(self.folder)
            if number in self.numbers(batch):
                raise StoreError("that preparation is there")
            _write(
                place / f"{number:02}.half",
                lambda ino: seal(self._key, _about(batch, number, ino), half),
            )

    @property
    def ready(self) -> int:
        """How many preparations there are, of all owners."""
        return sum(1 for _ in self.folder.glob("*/*.half"))

    def ready_for(self, owner: str) -> int:
        """How many there are of one."""
        return sum(len(self.numbers(batch)) for batch in self.batches(owner))

    def numbers(self, batch: Batch) -> set[int]:
        """Of the preparations that there are."""
        place = self._place(batch.name)
        return set() if place is None else {int(p.stem) for p in place.glob("[0-9][0-9].half")}

    def claim(self, batch: Batch, number: int) -> bytes | None:
        """Takes a half out of the store, for good; None where it is gone.

        Raises:
          CheckpointError: it is damaged, or a copy; it is gone, too.
        """
        place = self._place(batch.name)
        if place is None:
            return None
        path = place / f"{number:02}.half"
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            ino = os.fstat(file.fileno()).st_ino
            path.unlink()  # one process alone gets beyond this
            _settle(place)
            if not self.numbers(batch):
                self._drop(place)
            return unseal(self._key, _about(batch, number, ino), file.read())
        return None

    def retain(self, batch: Batch, numbers: set[int]) -> int:
        """Throws away all preparations but these, and the batch with the last; how many."""
        place = self._place(batch.name)
        gone = self.numbers(batch) - numbers
        if place is not None:
            for number in gone:
                (place / f"{number:02}.half").unlink(missing_ok=True)
            _settle(place)
            if not self.numbers(batch):
                self._drop(place)
        return len(gone)

    def _tag(self, owner: str) -> str:
        """What folders say of an owner to who has the key."""
        return proof(self._key, b"owner", owner.encode())[:8].hex()

    def _place(self, name: bytes) -> pathlib.Path | None:
        return next(self.folder.glob(f"{name.hex()}-*"), None)

    def _read(self, place: pathlib.Path) -> Batch | None:
        """A batch; one that is too old, or damaged, goes."""
        name = bytes.fromhex(place.name.partition("-")[0])
        try:
            if self._old(place):
                raise CheckpointError("too old")
            found = unseal(self._key, _MAGIC + b"head" + name, (place / "head").read_bytes())
        except (OSError, CheckpointError):
            self._drop(place)
            return None
        return Batch(name, found[:KEY_BYTES], found[KEY_BYTES:])

    def _old(self, place: pathlib.Path) -> bool:
        return time.time() - (place / "head").stat().st_mtime > self._limits.days * _DAY_S

    def _drop(self, place: pathlib.Path) -> None:
        """Everything in a batch's folder; the head first, so that no other process begins with it."""
        (place / "head").unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)

    def _tidy(self) -> None:
        for place in self.folder.glob("*-*"):
            for part in place.glob("*.part"):  # nobody writes: this is locked
                part.unlink(missing_ok=True)
            if not (place / "head").exists() or self._old(place):
                self._drop(place)

    @contextlib.contextmanager
    def _writing(self, place: pathlib.Path, more: int) -> Iterator[None]:
        """Locked, and only if there is room."""
        tag = place.name.partition("-")[2]
        try:
            with self.locked():
                self._tidy()
                whose = (("*", self._limits.most_bytes), (tag, self._limits.most_bytes_each))
                for owner, most in whose:
                    kept = sum(_room(path) for path in self.folder.glob(f"*-{owner}/*"))
                    if kept + more > most:
                        what = "in all" if owner == "*" else "of one client"
                        raise StoreError(f"more than {most / 1e9:.2f} GB {what} are not kept")
                if shutil.disk_usage(self.folder).free < 2 * more:
                    raise StoreError("its disk is full")
                yield
        except OSError as error:
            raise StoreError(f"its disk does not take them: {error.strerror}") from error

    def _own_key(self) -> bytes:
        path = self.folder / "key"
        if not path.exists():
            _write(path, lambda ino: fresh_key())
        found = path.stat()
        if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid():
            raise StoreError(f"{path} is to be its owner's alone: chmod 600, or make a new folder")
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise StoreError(f"{path} is no key: delete the folder, and all is prepared anew")
        return key


def _about(batch: Batch, number: int, ino: int) -> bytes:
    """What a half's file is bound to."""
    place = number.to_bytes(8, "little") + ino.to_bytes(8, "little")
    return _MAGIC + b"half" + batch.name + batch.about + place


def _room(path: pathlib.Path) -> int:
    with contextlib.suppress(OSError):
        return max(_BLOCK_BYTES, path.stat().st_size)
    return 0


def _settle(folder: pathlib.Path) -> None:
    """Has the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: pathlib.Path, content) -> None:
    """The whole file, on the disk, or none, private from its first byte; content is of its inode."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content(os.fstat(file.fileno()).st_ino))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _settle(path.parent)
