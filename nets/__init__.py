"""Training of quantized networks: flax models, power-of-two quantizers, export to graphs.

Data flows one way: `data` and `augment` feed `loop`, which trains `minionn` (by `pretrain`) or its
quantized twin `quantized` (by `fold` and `qat`); `export` writes the integer graph. Nothing outside
this package is needed but `pqjax.ring`, `pqjax.graph` and `pqjax.errors`.
"""
