"""The sampling loop: prompts + parameters + key -> Rollout."""
