"""Held-out accuracy, during a run and of its checkpoints."""
