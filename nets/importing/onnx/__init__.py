"""ONNX models in."""

from nets.importing.onnx.reading import read_onnx

__all__ = ["read_onnx"]
