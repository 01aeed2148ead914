"""What `sampling.rows_at_once` must be to the batch and to the mesh."""

from collections.abc import Iterator, Mapping
from typing import Any

from dppo_jax import parallel


def slot_problems(config: Mapping[str, Any], num_devices: int) -> Iterator[str]:
  """What is wrong with `sampling.rows_at_once`, a whole number of at least 0.

  Args:
    config: plain nested dicts with the keys of configs/default.py.
    num_devices: of the mesh.

  Yields:
    Path, what was got and what is allowed, a sentence each.
  """
  got, data = config['sampling']['rows_at_once'], config['data']
  rows = data['num_prompts'] * data['group_size']
  if got > rows:
    yield (
      f'sampling.rows_at_once: got {got}; a step samples {rows} completions'
      f' (data.num_prompts={data["num_prompts"]} times'
      f' data.group_size={data["group_size"]}); set at most {rows}, or 0 for'
      ' all of them.'
    )
    return
  try:
    sizes = parallel.axis_sizes(**config['mesh'], num_devices=num_devices)
  except ValueError:
    return  # `mesh` is wrong, which is said elsewhere.
  shards = sizes[0] * sizes[1] * sizes[3]
  if got % shards:
    below = got // shards * shards
    legal = [n for n in (below, below + shards) if 0 < n <= rows]
    yield (
      f'sampling.rows_at_once: got {got}, which the {shards} batch shards of'
      ' the mesh (data times fsdp times expert) do not divide; the nearest'
      f' that fit: {" and ".join(map(str, legal))}.'
    )
