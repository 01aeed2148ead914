"""DPPO, divergence proximal policy optimization, in JAX."""

# Nothing is imported here: the version must cost no start-up time.
__version__ = '0.1.0'
