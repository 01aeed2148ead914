"""Rollouts of a step: sampled ahead, verified, rewarded, synced."""
