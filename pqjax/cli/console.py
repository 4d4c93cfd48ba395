"""What the commands say on standard error."""

import datetime
import sys
import threading
import time
from collections.abc import Callable

from pqjax.errors import PqjaxError

BANNER = "pqjax: two parties, semi-honest security, unaudited; see SECURITY.md for what leaks"


def say(text: str) -> None:
    """A line."""
    sys.stderr.write(f"{text}\n")  # in one piece: sessions' threads speak, too
    sys.stderr.flush()


def log(text: str, client: str = "") -> None:
    """A line of a server's log: when, which client, what."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    say(" ".join(filter(None, (now, client, text))))


class Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self) -> None:
        self._bar = None

    def __call__(self, where: str, done: int, steps: int) -> None:
        """Shows how many layers of a phase are done."""
        if not sys.stderr.isatty():
            return
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=steps, unit="layer", leave=False, dynamic_ncols=True)
        self._bar.total, self._bar.n = steps, done
        self._bar.set_description_str(where)
        if done == steps:
            self._bar.close()
            self._bar = None


class Refusals:
    """Says why connections were refused; of a flood a few a minute, then how many more there were."""

    most, every_s = 10, 60.0

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, threading.Lock()  # every connection has a thread of its own
        self._began, self._said, self._kept_back = now(), 0, 0

    def __call__(self, client: str, error: PqjaxError) -> None:
        """Says it, or counts it."""
        with self._lock:
            if self._now() - self._began >= self.every_s:
                if self._kept_back:
                    log(f"{self._kept_back} more connections were refused meanwhile")
                self._began, self._said, self._kept_back = self._now(), 0, 0
            if self._said < self.most:
                self._said += 1
                log(f"connection refused: {error}", client)
            else:
                self._kept_back += 1
