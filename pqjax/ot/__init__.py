"""Oblivious transfer: base OTs, extensions, and every flavour derived from them once.

`SOURCES` is the table of all that makes OTs, by the name that documents give it.
"""

from pqjax.ot.inline import Inline
from pqjax.ot.silent import EVERY
from pqjax.ot.softspoken import PARAMETERS
from pqjax.ot.source import Source
from pqjax.ot.stocked import SoftSpoken

SOURCES: dict[str, Source] = {
    source.name: source for source in (Inline(), *(SoftSpoken(k) for k in PARAMETERS), *EVERY)
}
