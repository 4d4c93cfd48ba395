"""The version, as plans name it."""

VERSION = "0.1.0"
