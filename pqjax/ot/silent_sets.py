"""Parameter sets of silent OT, as data: how large a round is, and what keeps its noise hidden.

The receiver's choices are A c xor e: c are k random bits, A is a public 10-local code, e has a single 1
in each of t regions. That these look random is primal LPN with regular noise. The sets below are meant
to cost 2^128 operations by what `ATTACKS` names; nobody has estimated that here. No others can be asked
for. Those that Ferret was published with, such as t = 1280, k = 452,000 for 10,485,760 OTs, fall short.
"""

import dataclasses

ATTACKS = ("attacks on regular primal LPN as of 2025 (eprint 2025/1476)",)

GROUP_LEAVES = 1 << 17  # few calls, and a group stays in the last cache of a core


@dataclasses.dataclass(frozen=True)
class NoiseSet:
    """One set: `trees` (t) regions of 2^depth outputs, and 2^log_k seeds that the code spreads.

    The larger a set, the further from the core lies the table of its code: an OT's seconds are a unit of
    work of their own (`pqjax.wire.work`).

    Reference: Ferret, eprint 2020/924; the numbers, eprint 2025/1476.
    """

    trees: int
    log_k: int
    depth: int

    @property
    def k(self) -> int:
        """Random OTs that the code spreads."""
        return 1 << self.log_k

    @property
    def seeds(self) -> int:
        """Random OTs that a round uses up: the code's, and one for every level of every tree."""
        return self.k + self.trees * self.depth

    @property
    def made(self) -> int:
        """Random OTs that a round makes."""
        return self.trees << self.depth

    @property
    def gain(self) -> int:
        """How many more it makes than it uses up."""
        return self.made - self.seeds

    @property
    def block_bits(self) -> int:
        """What its sender says: a block for every level of every tree."""
        return 128 * self.trees * self.depth

    @property
    def groups(self) -> list[slice]:
        """Trees that are grown together, and whose blocks are a message."""
        step = max(1, GROUP_LEAVES >> self.depth)
        return [slice(at, min(at + step, self.trees)) for at in range(0, self.trees, step)]


SETS = {
    "b10": NoiseSet(850, 16, 10),
    "b11": NoiseSet(1170, 17, 11),
    "b12": NoiseSet(1520, 18, 12),
    "b13": NoiseSet(1900, 19, 13),
}
