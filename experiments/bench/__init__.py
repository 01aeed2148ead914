"""Measurements; each prints its figures and where it took them."""
