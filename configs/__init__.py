"""Configurations: one file an experiment, every key in default.py."""
