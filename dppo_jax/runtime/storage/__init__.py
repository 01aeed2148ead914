"""The folder of a run: files, checkpoints, checksums, metrics."""
