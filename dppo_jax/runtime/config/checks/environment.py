"""Problems of section `environment` of a config."""

from collections.abc import Iterator, Mapping
from typing import Any

from dppo_jax import reasoning_tasks
from dppo_jax.rewards.environments.pool import check_environment
from dppo_jax.rewards.environments.table import LIBRARY


def find_problems(config: Mapping[str, Any]) -> Iterator[str]:
  """What does not go with conversations, a sentence each.

  Args:
    config: plain nested dicts with the keys of configs/default.py.
  """
  section, sampling = config['environment'], config['sampling']
  name = section['name']
  if not name:
    return
  try:
    check_environment(name, config['rewards']['num_workers'])
  except ValueError as error:
    yield str(error)
  if config['rewards']['verifier'].strip() != 'none':
    yield (
      f'rewards.verifier: got {config["rewards"]["verifier"]!r}; the'
      f" environment {name!r} gives the rewards, so set it to 'none'."
    )
  if name in LIBRARY and not _has_items(config['data']):
    yield (
      f'environment.name: {name!r} scores items of reasoning-gym; set'
      " data.source to 'reasoning_gym'."
    )
  if config['rewards']['model']:
    yield (
      f'rewards.model: got {config["rewards"]["model"]!r}; a reward model reads'
      f' one answer, and environment.name is {name!r}; leave one of them out.'
    )
  if sampling['cache_columns']:
    yield (
      f'sampling.cache_columns: got {sampling["cache_columns"]}; the cache of'
      ' conversations does not grow; set it to 0.'
    )
  if sampling['stop_strings']:
    yield (
      f'sampling.stop_strings: got {tuple(sampling["stop_strings"])!r}; a turn'
      ' ends with an end token; leave it at ().'
    )
  limit = sampling['max_completion_length']
  if section['max_turn_length'] > limit:
    yield (
      f'environment.max_turn_length: got {section["max_turn_length"]}; at most'
      f' sampling.max_completion_length={limit}, which holds all turns and'
      ' replies of a conversation.'
    )


def _has_items(data: Mapping[str, Any]) -> bool:
  """Whether every prompt is an item of reasoning-gym."""
  return not data['mixture'] and data['source'] == reasoning_tasks.SOURCE
