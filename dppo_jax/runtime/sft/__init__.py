"""Supervised fine-tuning (SFT) on demonstrations, before RL."""
