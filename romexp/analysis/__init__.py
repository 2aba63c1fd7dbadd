"""Numbers from rows: metrics, means and intervals, studies, sweeps, averages of traces. No drawing, no torch."""
