"""Verifiers: a completion and an answer to a reward and a reason."""
