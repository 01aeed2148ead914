"""Problems of section `rewards` of a config."""

from collections.abc import Iterator, Mapping
from typing import Any

from dppo_jax.rewards.answers.extraction import parse_extraction
from dppo_jax.rewards.pool import parse_verifier
from dppo_jax.rewards.shaping import parse_shaping


def find_misspelled(section: Mapping[str, Any]) -> Iterator[str]:
  """Problems of the keys that name rows, each a sentence.

  Args:
    section: plain, with the keys of configs/default.py.
  """
  for parse in (
    lambda: parse_verifier(section['verifier'], section['num_workers']),
    lambda: parse_extraction(section['extraction']),
    lambda: parse_shaping(section['shaping']),
  ):
    try:
      parse()
    except ValueError as error:
      yield str(error)


def find_misfits(
  section: Mapping[str, Any], max_length: int, *, talks: bool = False
) -> Iterator[str]:
  """Problems of what must fit together, once each key is fine by itself.

  Args:
    section: plain, with the keys of configs/default.py.
    max_length: sampling.max_completion_length, tokens.
    talks: whether an environment gives rewards.
  """
  none = section['verifier'].strip() == 'none'
  if none and not section['model'] and not talks:
    yield (
      "rewards.verifier: got 'none', which gives every completion 0, and"
      ' rewards.model and environment.name are empty; name the folder of a'
      ' reward model, a verifier, or an environment.'
    )
  clock, limit = section['wall_limit_s'], section['time_limit_s']
  if clock < limit:
    yield (
      f'rewards.wall_limit_s: got {clock}; at least rewards.time_limit_s='
      f'{limit}, which counts CPU time.'
    )
  names = [term.name for term in parse_shaping(section['shaping'])]
  cache = section['overlong_cache']
  if 'overlong' in names and not 0 < cache <= max_length:
    yield (
      f'rewards.overlong_cache: got {cache}; with rewards.shaping='
      f'{section["shaping"]!r} at least 1 and at most'
      f' sampling.max_completion_length={max_length}.'
    )
