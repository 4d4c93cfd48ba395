"""MiniONN for CIFAR-10: seven convolutions with ReLU, two average pools, one FC."""

from nets.architecture import INPUT, Architecture, Conv, Fc, Pool

MINIONN = Architecture(
    "minionn",
    (32, 32, 3),
    (
        Conv("conv1", INPUT, 64),
        Conv("conv2", "conv1", 64),
        Pool("pool2", "conv2", 2),
        Conv("conv3", "pool2", 64),
        Conv("conv4", "conv3", 64),
        Pool("pool4", "conv4", 2),
        Conv("conv5", "pool4", 64),
        Conv("conv6", "conv5", 64, window=1),
        Conv("conv7", "conv6", 16, window=1),
        Fc("fc", "conv7", 10),
    ),
)
