"""Microbatches of an update, where the config leaves their number open."""

from collections.abc import Mapping
from typing import Any

from dppo_jax import parallel

# Activations of so many are a few GiB of a small model, and a product of so
# many rows is bound by arithmetic on every device.
MICROBATCH_TOKENS = 8192
# Rows ordered by length are more alike in more parts: with 4 widths, 8 parts of
# 32 rows run 1.26 times the completion tokens per second of 4 parts.
_ORDERED_TOKENS = MICROBATCH_TOKENS // 2


def resolve(config: Mapping[str, Any], num_devices: int) -> int:
  """Gradient-accumulation steps of an update.

  `learner.num_microbatches`, or that of `least` where it is 0.

  Args:
    config: with the keys of configs/default.py.
    num_devices: of the mesh.

  Raises:
    ValueError: `mesh` does not fit the devices.
  """
  number = config['learner']['num_microbatches']
  if number:
    return int(number)
  rows = config['data']['num_prompts'] * config['data']['group_size']
  rows //= config['learner']['num_minibatches']
  ordered = config['learner']['length_buckets'] > 1
  limit = _ORDERED_TOKENS if ordered else MICROBATCH_TOKENS
  return least(config, rows, num_devices, limit)


def least(
  config: Mapping[str, Any],
  rows: int,
  num_devices: int,
  limit: int = MICROBATCH_TOKENS,
) -> int:
  """Least number of equal parts with few enough tokens per device.

  At most `limit`, padding included, or a row per device. 1 where the mesh does
  not divide the rows, which is a problem of the config.

  Args:
    config: with the keys of configs/default.py.
    rows: of an update.
    num_devices: of the mesh.
    limit: tokens.

  Raises:
    ValueError: `mesh` does not fit the devices.
  """
  data, fsdp, _, expert = parallel.axis_sizes(
    **config['mesh'], num_devices=num_devices
  )
  rows //= data * fsdp * expert
  columns = config['data']['max_prompt_length']
  columns += config['sampling']['max_completion_length']
  legal = [n for n in range(1, rows + 1) if rows % n == 0]
  few = (n for n in legal if rows // n * columns <= limit)
  return next(few, max(legal, default=1))
