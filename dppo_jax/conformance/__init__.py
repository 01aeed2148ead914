"""Conformance with reference implementations: the authors' code, HF models."""
