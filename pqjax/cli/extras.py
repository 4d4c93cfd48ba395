"""Commands that need packages which not everybody has."""

import contextlib
from collections.abc import Iterator

from pqjax.errors import DataError


@contextlib.contextmanager
def extra(name: str, command: str) -> Iterator[None]:
    """Around imports of what an extra of this project brings.

    Raises:
      DataError: it is not installed; says how it is.
    """
    try:
        yield
    except ImportError as error:
        raise DataError(
            f"`pqjax {command}` needs {error.name}, which is not installed: pip install 'pqjax[{name}]'"
        ) from error
