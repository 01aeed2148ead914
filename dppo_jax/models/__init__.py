"""Decoder-only transformers as pure functions."""
