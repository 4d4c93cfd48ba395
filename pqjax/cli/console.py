"""What the commands say on standard error."""

import sys

BANNER = "pqjax: two parties, semi-honest security, unaudited; see SECURITY.md for what leaks"


def say(text: str) -> None:
    """A line."""
    sys.stderr.write(f"{text}\n")  # in one piece: sessions' threads speak, too
    sys.stderr.flush()


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
