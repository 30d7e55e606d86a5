"""The report of a run: reads the run folder only, writes one page."""

from headstart.report.page import write

__all__ = ["write"]
