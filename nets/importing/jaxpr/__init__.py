"""Functions of JAX in."""

from nets.importing.jaxpr.reading import from_jax

__all__ = ["from_jax"]
