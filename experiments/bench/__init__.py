"""Benchmarks, a command each."""
