"""Stand-in for reasoning-gym: small tasks, each with one way to go wrong."""

__version__ = '0.0.1'
