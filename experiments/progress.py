"""What a long command says first, what it does and for how long; and a bar with the time left."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from experiments import record
from pqjax.errors import DataError

_EVERY_S = 1.0
_FORMAT = "{desc} |{bar}| {percentage:3.0f} %, {elapsed} gone, {remaining} left"


def taken(name: str) -> dict[str, float]:
    """Seconds of every stage of a command, as its last result says; of those that it has."""
    try:
        tree = record.read(name)
    except DataError:
        return {}
    return tree.get("stages", {})


def stages(name: str, about: str, names: Sequence[str], took: dict[str, float]) -> Iterator[str]:
    """Yields stage by stage, for the caller to do; says beforehand what they are and how long they take.

    A stage nobody has timed counts as the average of those that were. Without a terminal there is a
    line a stage and no bar.

    Args:
      name: of the result that was timed.
      about: what the command does.
      names: of the stages, in their order.
      took: where to put how many seconds each took, for the result's `stages`.
    """
    known = {stage: s for stage, s in taken(name).items() if stage in names}
    usual = sum(known.values()) / len(known) if known else 1.0
    expected = [known.get(stage, usual) for stage in names]
    how = "nobody has recorded how long it takes here"
    if known:
        guess = (
            "" if len(known) == len(names) else f", {len(names) - len(known)} of them by a guess"
        )
        how = f"about {_minutes(sum(expected))}, by the last result{guess}"
    _say(f"exp-{name}: {about}")
    _say(f"exp-{name}: {len(names)} stages, {how}: {'; '.join(names)}")
    bar = tqdm(total=sum(expected), disable=None, bar_format=_FORMAT, leave=False)
    with bar:
        for i, (stage, seconds) in enumerate(zip(names, expected, strict=True)):
            if bar.disable:
                left = f", about {_minutes(sum(expected[i:]))} left" if known else ""
                _say(f"exp-{name}: {stage} ... ({i + 1} of {len(names)}{left})")
            bar.set_description_str(stage)
            begin = time.monotonic()
            with _moving(bar, sum(expected[:i]), seconds):
                yield stage
            took[stage] = time.monotonic() - begin


@contextlib.contextmanager
def _moving(bar: tqdm, before: float, seconds: float) -> Iterator[None]:
    """Moves the bar as time goes by, to the stage's end at most; there when it is over."""
    over, begin = threading.Event(), time.monotonic()

    def tick() -> None:
        while not over.wait(_EVERY_S):
            _move(bar, before + min(time.monotonic() - begin, 0.99 * seconds))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    _move(bar, before + seconds)


def _move(bar: tqdm, to: float) -> None:
    bar.n = to
    bar.refresh()


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
