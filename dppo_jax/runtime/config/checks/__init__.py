"""Checks of the sections of a config; each returns all problems."""
