"""Sampling: prompts + parameters + key -> Rollout."""
