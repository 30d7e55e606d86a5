"""Headstart: transfer learning in measured stages."""

__version__ = "0.1.0"
