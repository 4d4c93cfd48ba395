"""Keras models as imported networks: `.keras` files, computed by Keras's own backend of JAX."""

from __future__ import annotations

import hashlib
import os
import pathlib
import typing
import zipfile

import jax
import numpy as np

from nets.importing.imported import Imported, Pixels
from nets.importing.jaxpr import from_jax
from pqjax.errors import CheckpointError, GraphError, shown
from pqjax.graph.bounds import Shape

_MOST_BYTES = 1 << 32  # of a file, unpacked: 2^28 weights of 8 bytes, and as much again


def from_keras(
    model: typing.Any, *, image: Shape | None = None, pixels: Pixels | None = None,
    classes: tuple[str, ...] = (), name: str | None = None,
) -> Imported:  # fmt: skip
    """A model of Keras 3, in inference mode.

    Args:
      model: a `.keras` file, which is read in Keras's safe mode, or a model.
      image: shape (H, W, C) of the input, where the model leaves it open.
      pixels: how integers 0..255 become what the model reads; None for these as they are, which is
        right where its first layer rescales them.
      classes: their names.
      name: of the network; None for the model's own.

    Raises:
      CheckpointError: the file is missing, of another format, broken, or asks for code to be run.
      GraphError: Keras is not installed, or does not run on JAX; else see `from_jax`.
    """
    keras = _keras()
    source = {"format": "keras", "keras": str(keras.__version__)}
    if isinstance(model, (str, os.PathLike)):
        path = pathlib.Path(model)
        source |= {"file": path.name, "sha256": _checked(path)}
        try:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # whatever a file makes of it
            raise CheckpointError(
                f"{path.name}: Keras does not read it: {type(error).__name__}: "
                f"{shown(str(error))}; a file of `model.save` without Lambda layers expected"
            ) from error
    if not isinstance(model, keras.Model) or len(model.inputs or ()) != 1:
        raise GraphError(
            f"a Keras model with one input expected, got {type(model).__name__}: build it, or wrap it "
            "in keras.Model(input, output)"
        )
    shape = tuple(image or model.inputs[0].shape[1:])
    if None in shape:
        raise GraphError(
            f"the model reads any size {shape}: say which, image=(height, width, channels)"
        )
    trained, fixed = ([v.value for v in kind] for kind in (
        model.trainable_variables, model.non_trainable_variables,
    ))  # fmt: skip

    def call(x: jax.Array) -> jax.Array:
        return model.stateless_call(trained, fixed, x, training=False)[0]

    example = np.zeros((1, *typing.cast(Shape, shape)), np.float32)
    title = name or str(model.name)
    return from_jax(call, example, pixels=pixels, classes=classes, name=title, source=source)


def _keras() -> typing.Any:
    """Keras, on JAX unless something else was chosen."""
    chosen = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = chosen or "jax"
    try:
        import keras

        backend = keras.backend.backend()
        if backend == "jax":
            return keras
    except ModuleNotFoundError as error:
        if error.name == "keras":
            raise GraphError("Keras is not installed: pip install pqjax[keras]") from error
        backend = str(error.name)
    finally:
        if chosen is None:
            del os.environ["KERAS_BACKEND"]
    raise GraphError(
        f"Keras runs on {backend} here: set KERAS_BACKEND=jax before Keras is imported. A model that "
        "needs TensorFlow or PyTorch comes in by ONNX: model.export('model.onnx', format='onnx')"
    )


def _checked(path: pathlib.Path) -> str:
    """The SHA-256 of a file that is a `.keras` archive of a bounded size."""
    if path.suffix in (".h5", ".hdf5"):
        raise CheckpointError(
            f"{path.name}: the old format is not read, its layers may hold code: "
            "keras.saving.load_model(...).save('model.keras') where it is from"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(each.file_size for each in archive.infolist())
            archive.getinfo("config.json")
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(
            f"{path.name}: no `.keras` file: {type(error).__name__}: {shown(str(error))}"
        ) from error
    if size > _MOST_BYTES:
        raise CheckpointError(f"{path.name}: {size} bytes unpacked, at most {_MOST_BYTES} expected")
    return hashlib.sha256(path.read_bytes()).hexdigest()
