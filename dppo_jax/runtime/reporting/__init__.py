"""What a run tells: header, progress, metrics, summary."""
