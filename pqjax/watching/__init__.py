"""Who runs a server sees what happens there: records of it, and logs, metrics and spans made of them."""

from pqjax.watching.door import Door, look
from pqjax.watching.logs import Log
from pqjax.watching.metrics import Metrics
from pqjax.watching.records import Record, Records, Sink, Sinks
from pqjax.watching.spans import Spans, tracer
