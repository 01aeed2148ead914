"""Figures of the papers, one per module: `python -m experiments.figures`."""
