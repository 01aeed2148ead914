"""Programs of a run compiled ahead of time for machines that are not here."""
