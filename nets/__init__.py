"""Training of quantized networks: flax models, power-of-two quantizers, export to graphs.

A network is one list of operations (`ops`); whatever is made of it is a walk over that list, or over the
steps that quantization makes of it (`steps`), with a table from kind to rule. Data flows one way: `data`
and `augment` feed `loop`, which trains `floating` networks (by `pretrain`) or their twins on integers,
`quantized` (by `fold` and `qat`); `export` writes the integer graph. Nothing outside this package is
needed but `pqjax.ring`, `pqjax.graph` and `pqjax.errors`.
"""
