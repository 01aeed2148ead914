"""The workdir of a run: files, checkpoints, checksums, metrics."""
