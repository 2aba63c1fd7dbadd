"""Computes numbers from rows: metrics, means with intervals, studies, sweeps and averages of traces.

Nothing here draws, and nothing needs torch.
"""
