"""The network that `pqjax demo` shows where none is named: made by a process of its own, once."""

import contextlib
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pqjax
from pqjax.errors import DataError, PqjaxError
from pqjax.web.child import told_by

GROUP = "pqjax.demos"  # of entry points: told of progress -> the path of a network file
_CHECKPOINT = "nets/checkpoints/minionn_w2a4_long.npz"

Progress = Callable[[str, int, int], None]


def committed() -> pathlib.Path:
    """A small network that comes with this project.

    Raises:
      DataError: it is not there.
    """
    path = pathlib.Path(pqjax.__file__).parents[1] / _CHECKPOINT
    if not path.is_file():
        raise DataError(f"{_CHECKPOINT} is not here: name a network file, `pqjax demo network.npz`")
    return path


def made(progress: Progress, group: str = GROUP) -> pathlib.Path:
    """Makes it in another process, whose memory is free then, by the first entry point of a group.

    Raises:
      DataError: it cannot be made here; says why.
    """
    for tree in told_by("from pqjax.web.network import main\nmain(sys.argv[1])", group):
        if "path" in tree:
            return pathlib.Path(tree["path"])
        if "error" in tree:
            raise DataError(tree["error"])
        progress(tree["what"], tree["done"], tree["steps"])
    raise DataError("the process that made the network ended without a word")


def main(group: str = GROUP) -> None:
    """Makes it, and says what it does in lines of JSON."""

    def tell(**what: Any) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    out, found = sys.stdout, list(importlib.metadata.entry_points(group=group))
    with contextlib.redirect_stdout(sys.stderr):  # whatever prints meanwhile
        try:
            if not found:
                raise DataError("nothing is installed that has a network to show")
            step = lambda what, done, steps: tell(what=what, done=done, steps=steps)
            tell(path=str(found[0].load()(step)))
        except ImportError as error:
            tell(
                error=f"making it needs {error.name}, which is not installed: pip install 'pqjax[nets]'"
            )
        except PqjaxError as error:
            tell(error=str(error))
