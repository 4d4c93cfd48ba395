"""Oblivious transfer: base OTs, extensions, and every flavour derived from them once."""
