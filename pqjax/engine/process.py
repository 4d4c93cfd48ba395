"""What concerns the whole process that runs one party: for the command line only, never on import."""

import contextlib
import ctypes
import os
import pathlib
import resource
import stat
import sys

import jax

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def cache_folder() -> pathlib.Path:
    """Where compiled kernels and decoded data are kept: `$XDG_CACHE_HOME/pqjax` or `~/.cache/pqjax`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "pqjax"


def keep_freed_memory() -> None:
    """Lets glibc keep freed blocks: fresh pages for every message cost 2-3 times the copying."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library: slower, not wrong
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, 512 << 20)
    mallopt(_TOP_PAD, 64 << 20)
    mallopt(_ARENA_MAX, 1)


def keep_compiled_kernels() -> None:
    """Turns on JAX's persistent compilation cache, so that a second start compiles nothing."""
    folder = cache_folder() / "xla"
    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def settle() -> None:
    """Memory and compiled kernels, both."""
    keep_freed_memory()
    keep_compiled_kernels()


def write_private(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file that only its owner may read: answers and traces say what was asked.

    Raises:
      OSError: it cannot be written, or belongs to somebody else.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # not a terminal or a pipe
            os.fchmod(descriptor, 0o600)  # it may have been there, with another mode
        file.write(text)


def resident_bytes(process: int | str = "self") -> int:
    """Memory that a process, by its number, has resident now; 0 where the system does not say."""
    try:
        pages = pathlib.Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def peak_bytes() -> int:
    """Most memory this process has had resident."""
    with contextlib.suppress(OSError):  # Linux; getrusage there remembers what the parent had
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
