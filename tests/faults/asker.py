"""A client as a program: warm, it asks whom it is told to, and says how that ended.

A line of standard input is {"address": ..., "deadline_s": ...}; a line of standard output an `End`.
"""

import json
import sys

from serving import serving
from trial import PATIENT_S, PLAN, ask


def main() -> None:
    with serving(plan=PLAN, deadline_s=PATIENT_S) as (address, _):
        print(json.dumps(ask(address)), flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        print(json.dumps(ask(told["address"], told["deadline_s"])), flush=True)


if __name__ == "__main__":
    main()
