"""Answers: found in a completion, read, and compared exactly."""
