import os
import pathlib
import sys

# Compiled kernels are kept between runs, and helper modules of this folder can be imported.
sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/pqjax/xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
