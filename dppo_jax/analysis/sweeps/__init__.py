"""Sweeps: variants of a config, their runs, statistics and comparisons."""
