"""Figures of a report, with matplotlib."""
