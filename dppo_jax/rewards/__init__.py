"""Verifiers: (completion, reference answer) -> reward and reason."""
