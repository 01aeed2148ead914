"""What figures share: tiers, runs, judging, verdicts, README rows."""
