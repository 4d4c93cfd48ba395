"""Folders: what is kept in the user's cache and how much of it, key files, certificates, and data."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator

from pqjax.doctor.finding import Finding
from pqjax.engine.process import cache_folder
from pqjax.errors import InputError
from pqjax.wire.tls import Tls

LEAST_BYTES = 1 << 30  # of room: the hints of a large network take a good part of it
# Folders that PQJAX_DATA may have, and what is done with them.
DATA = {
    "cifar10": "exp-minionn, train, tables 6, 7 and 11",
    "cifar100": "exp-resnet32, exp-resnet18, train",
    "cifar10_resnet_ckpt": "train: public weights of ResNet32 to begin with",
    "imagenet_nips2017": "exp-mobilenetv2-accuracy, exp-efficientnet-accuracy, LABELLED=n",
    "imagenet_train1000": "calibration: exp-mobilenetv2, exp-efficientnet, pqjax import by name",
    "mobilenetv2_int8": "exp-mobilenetv2: Google's weights",
}


@dataclasses.dataclass(frozen=True)
class Kept:
    """Files of one sort in a folder."""

    what: str
    path: str
    files: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Data:
    """What `PQJAX_DATA` names: the folder, None where it is not set; and which of `DATA` are in it."""

    folder: str | None
    there: dict[str, bool]


def kept(hints: pathlib.Path, store: pathlib.Path) -> list[Kept]:
    """What commands keep between two runs, each sort with its size."""
    cache = cache_folder()
    sorts = (
        ("compiled kernels", cache / "xla", "**/*"),
        ("hints", hints, "*.hint"),
        ("keys to hints", hints, "*.key"),
        ("plans", hints, "*.plan"),
        ("stored preparations", store, "*/*.half"),
        ("networks that were made", cache, "*.npz"),
        ("decoded pictures", cache, "*.npy"),
        ("hints of pqjax demo", cache / "demo" / "hints", "*"),
    )
    return [_counted(what, folder, pattern) for what, folder, pattern in sorts]


def _counted(what: str, folder: pathlib.Path, pattern: str) -> Kept:
    files = size = 0
    with contextlib.suppress(OSError):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # another process may take it away
                found = path.stat()
                if stat.S_ISREG(found.st_mode):
                    files, size = files + 1, size + found.st_size
    return Kept(what, str(folder), files, size)


def room_findings(folder: pathlib.Path, least_bytes: int = LEAST_BYTES) -> Iterator[Finding]:
    """Whether there could be files in a folder, which may not be there yet; leaves none."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        yield Finding(
            f"nothing can be kept in {folder}: {error.strerror or error}",
            "make it writable for this user, or name another (--hints, --store, XDG_CACHE_HOME)",
        )
        return
    if free < least_bytes:
        yield Finding(
            f"{free / 1e9:.2f} GB are free for {folder}, and {least_bytes / 1e9:.2f} GB are the least",
            "make room, or name a folder on another disk (--hints, --store, XDG_CACHE_HOME)",
        )


def key_findings(hints: pathlib.Path, store: pathlib.Path) -> Iterator[Finding]:
    """Secrets that others than their owner may read or alter."""
    for path in sorted(hints.glob("*.key")):
        yield from _private(path, "who has it can solve a model's hints for its weights")
    yield from _private(store / "key", "who has it can open stored preparations")


def _private(path: pathlib.Path, why: str) -> Iterator[Finding]:
    try:
        found = path.stat()
    except OSError:  # it is not there: no secret either
        return
    if stat.S_IMODE(found.st_mode) & 0o077:
        yield Finding(f"{path} is open to other users, and {why}", f"chmod 600 {path}")
    elif found.st_uid != os.geteuid():
        yield Finding(
            f"{path} belongs to another user, and {why}", "let its owner run pqjax, or delete it"
        )


def tls_findings(folder: pathlib.Path) -> Iterator[Finding]:
    """Whether a folder of `pqjax certs` has what one side needs, or both, for that side alone."""
    again = "make certificates with pqjax certs in a new folder"
    sides = [side for side in ("server", "client") if (folder / f"{side}.pem").exists()]
    if not sides:
        yield Finding(f"{folder} has neither server.pem nor client.pem", again)
    for side in sides:
        files = [folder / name for name in (f"{side}.pem", f"{side}.key", "ca.pem")]
        try:
            Tls(*files).context(server=side == "server")
        except InputError as error:
            yield Finding(str(error), again)
        yield from _private(files[1], f"who has it is taken for the {side}")


def data() -> Data:
    """What the environment says."""
    folder = os.environ.get("PQJAX_DATA") or None
    root = None if folder is None else pathlib.Path(folder)
    return Data(folder, {name: root is not None and (root / name).is_dir() for name in DATA})


def data_findings(found: Data) -> Iterator[Finding]:
    """A folder that is named and is not there; to do without is fine."""
    if found.folder is not None and not any(found.there.values()):
        yield Finding(
            f"PQJAX_DATA is {found.folder}, and there is no data in it",
            f"name a folder that has some of {', '.join(DATA)}, or none", wrong=False,
        )  # fmt: skip
