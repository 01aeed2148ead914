"""Supervised fine-tuning on demonstrations, before reinforcement."""
