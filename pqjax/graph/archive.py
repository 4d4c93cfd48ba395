"""The container of a model file: an npz of flat arrays. Nothing in it is believed before it is bounded.

A zip says how long its members are, more than once and not always the truth; a member that is 8 GiB of
zeros takes 8 MiB compressed, and two members may share their bytes. So: members have names of their
own, are stored (as `np.savez` does) or deflated by no more than packed weights can be, and take no more
of the file together than there is; a member is read up to the length that its reader expects, never
further. An array's header is read by a pattern, not by a parser.
"""

import pathlib
import re
import struct
import typing
import zipfile

from pqjax.errors import CheckpointError, listed, shown

MOST_RATIO = 64  # of a deflated member: zeros alone compress better
MOST_DIRECTORY_BYTES = 4 << 20  # two members a layer, some 150 bytes each

_END = struct.Struct("<4s4H2LH")  # the record that ends a zip without a comment
_LOCATOR_BYTES = 20  # before it, if the zip is of the 64-bit form
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '(\|u1|<i8)', 'fortran_order': False, "
    rb"'shape': \((\d{1,12},)?\), \} *\n",
    re.DOTALL,
)
_MOST_HEADER_BYTES = 256


class Archive:
    """An open model file, as a context manager. Faults are `CheckpointError`s, or `zipfile`'s."""

    def __init__(self, path: pathlib.Path) -> None:
        self._file = open(path, "rb")
        try:
            nbytes = _check_end(self._file)
            self._zip = zipfile.ZipFile(self._file)
            self._members = _members(self._zip.infolist(), nbytes)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def check_names(self, wanted: set[str]) -> None:
        """Checks that there are exactly these arrays."""
        if wanted != self._members.keys():
            missing = listed(sorted(wanted - self._members.keys())) or "none"
            extra = listed(map(shown, sorted(self._members.keys() - wanted))) or "none"
            raise CheckpointError(f"arrays of another graph: missing {missing}, not in it {extra}")

    def read(self, name: str, most: int, exactly: bool = False) -> bytes:
        """The bytes of a flat array, at most `most` or `exactly` as many."""
        here = f"array {name!r}"
        info = self._members.get(name)
        if info is None:
            raise CheckpointError(f"there is no {here}")
        if info.file_size > most + _MOST_HEADER_BYTES:
            raise CheckpointError(f"{here}: at most {most} bytes expected, got {info.file_size}")
        with self._zip.open(info) as member:
            raw = member.read(info.file_size + 1)
        header = _HEADER.match(raw[:_MOST_HEADER_BYTES])
        if header is None or int.from_bytes(header[1], "little") != header.end() - 10:
            raise CheckpointError(f"{here}: a flat array of bytes expected, got something else")
        data = raw[header.end() :]
        count = int(header[3][:-1]) if header[3] else 1
        if len(data) != count * (1 if header[2] == b"|u1" else 8):
            want = f"{count} elements of {header[2].decode()}"
            raise CheckpointError(f"{here}: {want} expected, got {len(data)} bytes")
        if len(data) > most or (exactly and len(data) != most):
            limit = "" if exactly else "at most "
            raise CheckpointError(f"{here}: {limit}{most} bytes expected, got {len(data)}")
        return data


def _check_end(file: typing.BinaryIO) -> int:
    """Checks how a zip ends, before its directory is read; its length."""
    nbytes = file.seek(0, 2)
    if nbytes < _END.size:
        raise CheckpointError(f"a zip has at least {_END.size} bytes, got {nbytes}")
    back = min(nbytes, _END.size + _LOCATOR_BYTES)
    file.seek(nbytes - back)
    tail = file.read(back)
    mark, _, _, _, _, directory, _, comment = _END.unpack(tail[-_END.size :])
    if mark != b"PK\5\6" or comment or tail.startswith(b"PK\6\7"):
        raise CheckpointError("it does not end like a zip of less than 4 GiB without a comment")
    if directory > MOST_DIRECTORY_BYTES:
        raise CheckpointError(
            f"a directory of at most {MOST_DIRECTORY_BYTES} bytes expected, got {directory}"
        )
    return nbytes


def _members(infos: list[zipfile.ZipInfo], nbytes: int) -> dict[str, zipfile.ZipInfo]:
    """A zip's members by the name of their array, each bounded by what the file has."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or name in found:
            raise CheckpointError(f"arrays of different names expected, got {shown(info.filename)}")
        ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MOST_RATIO}.get(info.compress_type)
        if info.flag_bits & 1 or ratio is None:
            raise CheckpointError(f"array {shown(name)}: stored or deflated bytes expected")
        if info.file_size > ratio * info.compress_size:
            raise CheckpointError(
                f"array {shown(name)}: {info.compress_size} bytes cannot hold {info.file_size}"
            )
        found[name] = info
    if sum(info.compress_size for info in infos) > nbytes:
        raise CheckpointError(f"its members take more than the {nbytes} bytes that it has")
    return found
