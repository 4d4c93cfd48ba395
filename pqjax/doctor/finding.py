"""What is wrong, or could be better, and what to do about it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Finding:
    """One of them.

    Attributes:
      what: is so.
      do: what mends it.
      wrong: as it is, this machine cannot serve or ask safely; else it is advice.
    """

    what: str
    do: str
    wrong: bool = True
