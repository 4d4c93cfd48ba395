"""How large anything in a graph may be, and why: a stranger's document makes this side do finite work.

Every integer of a node has a bound of its own, written into the node's annotations and checked when a
`Graph` is made (`pqjax.schema`). Those of a whole network are checked where one is read, saved or
planned (`Graph.check_bounds`), so that whatever can be saved can be read.
"""

import typing

from pqjax.schema import Between, Length, Printable, Product

MOST_SIDES = 3  # images are (H, W, C), vectors (C,)
MOST_ELEMENTS = 1 << 25  # of one tensor: twice a 512 x 512 image of 64 channels
MOST_SCALE = 256  # 2^-256 .. 2^256: beyond any 64-bit integer's use, and shifts stay small
MOST_SOURCES = 64  # of one node: a dense block concatenates some 30
MOST_SHIFT = 63  # of the widest ring
MOST_GUARD = 8  # 255 guarded accumulators may be added up
MOST_SIDE = 256  # of a kernel or window
MOST_TAPS = 1 << 12  # of a kernel: a grouped product makes messages for each
MOST_WINDOW = 1 << 16  # elements of a pool's window: a whole image of 256 x 256
MOST_STRIDE = 1 << 12
MOST_MARGIN = (
    1 << 12
)  # rows, columns or channels that are added on one side of an image or of its channels
MOST_GROUPS = 1 << 16
MOST_MULTIPLIER = 1 << 32
MOST_TAKEN = 1 << 16  # channels that are picked out of a tensor's

LONGEST_NAME = 128  # characters of a node's name as given; passes append words to it
LONGEST_MADE_NAME = 256

# Of a whole network, as given.
MOST_NODES = 1 << 12  # ResNet-152 has 700; a plan of as many is made in seconds
MOST_MADE_NODES = 1 << 15  # of what passes make of one
MOST_READERS = 64  # of one tensor: residual networks have 2 or 3
MOST_TOTAL_ELEMENTS = 1 << 28  # of all tensors together; ResNet-152 has 2^26
MOST_WEIGHTS = 1 << 28  # of all layers together; VGG-16 has 2^27
MOST_GRAPH_BYTES = 2 << 20  # as JSON: some 500 bytes a node

Name = typing.Annotated[str, Length(1, LONGEST_MADE_NAME), Printable()]
Bits = typing.Annotated[int, Between(1, 64)]
Squares = typing.Annotated[int, Between(0, 160)]  # 2^28 weights of 64 bits have 2^154
Scale = typing.Annotated[int, Between(-MOST_SCALE, MOST_SCALE)]
Guard = typing.Annotated[int, Between(0, MOST_GUARD)]
Shift = typing.Annotated[int, Between(1, MOST_SHIFT)]
Word = typing.Annotated[int, Between(-(1 << 63), (1 << 63) - 1)]
Groups = typing.Annotated[int, Between(1, MOST_GROUPS)]
Multiplier = typing.Annotated[int, Between(1, MOST_MULTIPLIER)]

_Side = typing.Annotated[int, Between(1, MOST_SIDE)]
_Step = typing.Annotated[int, Between(1, MOST_STRIDE)]
_Zeros = typing.Annotated[int, Between(0, MOST_MARGIN)]
_Extent = typing.Annotated[int, Between(1, MOST_ELEMENTS)]

Shape = typing.Annotated[tuple[_Extent, ...], Length(1, MOST_SIDES), Product(MOST_ELEMENTS)]
Kernel = typing.Annotated[tuple[_Side, _Side], Product(MOST_TAPS)]
Window = typing.Annotated[tuple[_Side, _Side], Product(MOST_WINDOW)]
Stride = tuple[_Step, _Step]
Margins = tuple[_Zeros, _Zeros]  # before and after
Taken = typing.Annotated[
    tuple[typing.Annotated[int, Between(0, MOST_ELEMENTS)], ...], Length(1, MOST_TAKEN)
]
