"""This machine's rates in a file of the user's cache, by machine and version of pqjax."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import platform
import typing
from collections.abc import Mapping

from pqjax.engine.process import cache_folder
from pqjax.errors import DataError, PqjaxError
from pqjax.graph.strict_json import parse
from pqjax.schema import Length, read
from pqjax.version import VERSION
from pqjax.wire.work import UNITS, Rates

_MOST_BYTES = 1 << 14
_SLOWEST_S = 10.0  # of one of any unit


@dataclasses.dataclass(frozen=True)
class _File:
    """Its fields; seconds as texts, so that they are read as they were written."""

    format: typing.Literal[1]
    machine: str
    seconds: typing.Annotated[Mapping[str, str], Length(len(UNITS), len(UNITS))]
    turn: str
    version: str


def processor() -> str:
    """The processor's model, where the system says it."""
    model = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return model


def machine() -> str:
    """What tells this machine from others, in a few words."""
    return f"{processor()}, {os.cpu_count()} cores"


def rates_path() -> pathlib.Path:
    """Where this machine's rates are kept."""
    key = hashlib.sha256(f"{machine()} {VERSION}".encode()).hexdigest()[:16]
    return cache_folder() / f"rates-{key}.json"


def keep_rates(rates: Rates) -> pathlib.Path:
    """Writes the file, all or nothing; where it is.

    Raises:
      DataError: it cannot be written.
    """
    path = rates_path()
    seconds = {unit: repr(s) for unit, s in zip(UNITS, rates.seconds, strict=True)}
    tree = dataclasses.asdict(_File(1, machine(), seconds, repr(rates.turn_s), VERSION))
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(tree, indent=1) + "\n")
        draft.replace(path)
    except OSError as error:
        raise DataError(f"cannot write the rates to {path}: {error}") from error
    return path


def kept_rates() -> Rates | None:
    """This machine's rates; None where it was never calibrated by this version.

    Raises:
      DataError: the file is damaged, or of another machine or version.
    """
    path = rates_path()
    if not path.exists():
        return None
    try:
        tree = read(_File, parse(path.read_bytes(), _MOST_BYTES))
        if (tree.machine, tree.version) != (machine(), VERSION):
            raise DataError("of another machine or version")
        each = [_seconds(tree.seconds[unit]) for unit in UNITS]
        return Rates(tuple(each), _seconds(tree.turn), f"measured on {tree.machine}")
    except (OSError, KeyError, ValueError, PqjaxError) as error:
        raise DataError(f"{path} holds no rates ({error}): run `pqjax calibrate`") from error


def _seconds(text: str) -> float:
    found = float(text)
    if not (math.isfinite(found) and 0 <= found <= _SLOWEST_S):
        raise DataError(f"seconds in 0..{_SLOWEST_S:g} expected, got {text}")
    return found
