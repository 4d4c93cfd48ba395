import os
import pathlib
import sys

import hypothesis
import jax
import pytest

# Compiled kernels are kept between runs, and helper modules of this folder can be imported.
sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/pqjax/xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

FREE = ("nets", "experiments")  # training, whose libraries promote


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """What the product computes is cast and broadcast on purpose; in all threads."""
    if pathlib.Path(request.path).parent.name in FREE:
        yield
        return
    from promotion import strict  # found once this folder is on the path

    with strict():
        yield


MOST_MAPS = 20_000  # of some 65,000 that Linux grants a process: one more, and it dies


@pytest.fixture(autouse=True, scope="module")
def few_maps():
    """Lets go of compiled kernels, each of which is mapped in pieces, when there are very many."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


# A busy machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
