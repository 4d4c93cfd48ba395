"""What this machine and this installation have, and what they lack to serve networks and to ask.

Everything is looked at, nothing is changed. What `import pqjax` cannot do without is there, or this
room could not be asked.
"""

from pqjax.doctor.examination import Examination, examine
from pqjax.doctor.finding import Finding
from pqjax.doctor.trial import try_out
