"""Limits of the processes that verify, and their ranges."""

import math

# MiB: Python and sympy need as much.
MIN_MEMORY_MB = 256


def check_limits(
  num_workers: int,
  time_limit_s: float,
  wall_limit_s: float,
  memory_limit_mb: int,
) -> None:
  """Checks the limits of a pool of workers.

  Raises:
    ValueError: one is out of its range; names the config key.
  """
  if num_workers < 0:
    raise ValueError(f'rewards.num_workers: got {num_workers}; 0 or more.')
  if not (math.isfinite(time_limit_s) and time_limit_s > 0):
    raise ValueError(
      f'rewards.time_limit_s: got {time_limit_s}; a positive number of seconds.'
    )
  if not (math.isfinite(wall_limit_s) and wall_limit_s >= time_limit_s):
    raise ValueError(
      f'rewards.wall_limit_s: got {wall_limit_s}; a number of seconds, at'
      f' least rewards.time_limit_s = {time_limit_s}.'
    )
  if memory_limit_mb < MIN_MEMORY_MB:
    raise ValueError(
      f'rewards.memory_limit_mb: got {memory_limit_mb}; at least'
      f' {MIN_MEMORY_MB}, which Python and sympy need.'
    )
