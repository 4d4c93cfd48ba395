"""What the product computes is cast and broadcast on purpose: JAX refuses to do it unasked."""

import contextlib

import jax

_STRICT = {"jax_numpy_dtype_promotion": "strict", "jax_numpy_rank_promotion": "raise"}


@contextlib.contextmanager
def strict():
    """In all threads, until it ends."""
    before = {name: getattr(jax.config, name) for name in _STRICT}
    for name, value in _STRICT.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
