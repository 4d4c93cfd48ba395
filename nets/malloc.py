"""glibc settings that keep freed memory: else page faults double a training step's time."""

import os
import sys

_TUNABLES = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "mmap_threshold": 1 << 34,
        "trim_threshold": 1 << 34,
        "top_pad": 1 << 28,
        "hugetlb": 1,
        "arena_max": 1,
    }.items()
)


def keep_freed_memory() -> None:
    """Starts the running command again with GLIBC_TUNABLES, on Linux, unless it is set."""
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = _TUNABLES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
