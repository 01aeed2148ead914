"""Benchmarks; each prints its results and writes them with their provenance."""
