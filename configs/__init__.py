"""Configurations: one file per experiment, every key in default.py."""
