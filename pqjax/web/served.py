"""The other party: `pqjax serve` in a process of its own, which ends with this one."""

import collections
import contextlib
import pathlib
import subprocess
import threading
import time

from pqjax.errors import WireError
from pqjax.graph.strict_json import parse
from pqjax.web.child import COMMAND_LINE, child, end

_TRACE_BYTES = 64 << 20  # ResNet50's takes a tenth
_LINES = 20


class Served:
    """A server's process. Use as a context manager.

    Attributes:
      address: "host:port", once it listens (`wait`).
    """

    def __init__(self, model: pathlib.Path, preset: str, folder: pathlib.Path):
        """Starts it; `folder` is for its trace, and nobody else's."""
        self._trace = folder / "server.trace.json"
        self._trace.unlink(missing_ok=True)
        self._process = child(
            COMMAND_LINE, "serve", f"model={model}", "--listen", "127.0.0.1:0", "--protocol", preset,
            "--clients", "1", "--trace", str(self._trace),
        )  # fmt: skip
        self.address = ""
        self._said: collections.deque[str] = collections.deque(maxlen=_LINES)
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def _hear(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line.strip())

    def wait(self) -> str:
        """Until it listens, which takes the making of hints the first time; its address.

        Raises:
          WireError: it ended before; says its last line.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("listening on "):
                self.address = line.split()[-1]
                return self.address
        raise WireError(self._ended())

    def _ended(self) -> str:
        self._process.wait()
        self._hearing.join(1)
        last = self._said[-1].removeprefix("pqjax: ") if self._said else "it said nothing"
        return f"the server's process ended with code {self._process.returncode}: {last}"

    def gone(self, patience_s: float = 0.0) -> WireError | None:
        """What to say if it has ended, or does soon; None if it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        return None if self._process.poll() is None else WireError(self._ended())

    def trace(self, patience_s: float = 5.0) -> list[dict]:
        """What it did in the last session, layer by layer; empty if it does not say in time.

        It is written when the session is over, and taken once.
        """
        until = time.monotonic() + patience_s
        while time.monotonic() < until and not self.gone():
            try:
                tree = parse(self._trace.read_bytes(), _TRACE_BYTES)
                self._trace.unlink()
                return tree["trace"]
            except (OSError, ValueError):  # not there, or not whole
                time.sleep(0.05)
        return []

    def close(self) -> None:
        """Ends it."""
        end(self._process)
        self._hearing.join(1)

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
