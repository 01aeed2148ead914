"""Output of a run: header, progress, metrics, summary."""
