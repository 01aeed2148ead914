"""Shared by all figures: tiers, runs, verdicts and READMEs."""
