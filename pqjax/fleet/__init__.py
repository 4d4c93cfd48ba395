"""Beyond one machine, on Ray: replicas of a server, a directory that sends clients to them, evaluation.

Ray is imported where it is used, and by servers only: a client of a fleet needs none of it.
"""

from pqjax.fleet.client import fleet_connect
