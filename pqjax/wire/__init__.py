"""How bytes travel between the two parties, and what a schedule of messages costs."""
