"""The report of one or several runs: a comparison table and a self-contained HTML page."""

from __future__ import annotations

from liit.report.page import write_report
from liit.report.reading import load_runs
from liit.report.scoring import scoring_text
from liit.report.summary import BRIEF, summary_table, to_csv, to_json, to_rich, to_text

__all__ = [
    "BRIEF",
    "load_runs",
    "scoring_text",
    "summary_table",
    "to_csv",
    "to_json",
    "to_rich",
    "to_text",
    "write_report",
]
