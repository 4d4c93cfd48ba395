"""Processes that others started, as /proc tells of them."""

import contextlib
import pathlib


def descendants(pid: int) -> list[int]:
    """Its children, theirs, and so on; those that ended and that nobody waited for, too.

    A child is listed with the thread that started it, so all threads are asked.
    """
    found: list[int] = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            found += [int(text) for text in path.read_text().split()]
    return found + [each for child in found for each in descendants(child)]
