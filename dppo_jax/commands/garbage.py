"""Python's collector of garbage, in a process that is a command."""

import gc

_OBJECTS = 100_000  # New ones between two collections; Python: 700.


def collect_less() -> None:
  """Has Python look for garbage less often.

  What is imported and traced lives on: looking through it again and again took
  a fifth of the CPU time up to the first train step.
  """
  gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
