"""Ahead-of-time compilation of a run's programs, for hardware not attached."""
