"""Environments: what a policy talks to, turn by turn, and its rewards."""
