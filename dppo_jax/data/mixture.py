"""Data mixtures: the source of each prompt, a pure function of its position.

Positions are grouped into blocks. Each block contains every source in exact
proportion, in an order random per block. So the source at a position, and the
number of earlier prompts of that source, depend on the position only.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

import numpy as np

BLOCK = 1000  # Positions; shares are exact to a thousandth.
STREAM = 2  # Separates these random numbers from others of the same seed.


class Component(NamedTuple):
  """One row of data.mixture.

  Attributes:
    source: its name.
    files: a path or glob; '' for those in data_dir.
    weight: above 0.
    fields: overrides of data.fields for this source.
  """

  source: str
  files: str
  weight: float
  fields: Mapping[str, str]


def parse(rows: Sequence[Any]) -> tuple[Component, ...]:
  """Components of data.mixture, rows (source, files, weight[, fields]).

  >>> parse([('rows', 'a.jsonl', 2, (('answer', 'gold'),))])[0].fields
  {'answer': 'gold'}

  Raises:
    ValueError: a row has another shape.
  """
  return tuple(map(_component, rows))


def _component(row: Any) -> Component:
  if isinstance(row, (list, tuple)) and len(row) in (3, 4):
    fields = _fields(row[3] if len(row) == 4 else ())
    if fields is not None and all(isinstance(text, str) for text in row[:2]):
      return Component(row[0], row[1], row[2], fields)
  raise ValueError(
    f'data.mixture: got {row!r}; a row is (source, files, weight), such as'
    " ('math', '', 2.0), or also has fields, such as ('rows', 'a.jsonl', 1.0,"
    " (('prompt', 'question'),))."
  )


def _fields(value: Any) -> dict[str, str] | None:
  """Dict of a mapping or of pairs of texts; None for anything else."""
  if isinstance(value, Mapping):
    value = list(value.items())
  if not isinstance(value, (list, tuple)):
    return None
  for pair in value:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
      return None
    if not all(isinstance(text, str) for text in pair):
      return None
  return dict(value)


def counts(weights: Sequence[float]) -> np.ndarray:
  """Positions per block of each source: i64 [S], their sum is `BLOCK`.

  Largest-remainder rounding; every source has at least one.

  Args:
    weights: > 0, with any sum; at most `BLOCK` of them.

  >>> counts([2.0, 1.0]).tolist()
  [667, 333]
  """
  shares = np.asarray(weights, np.float64)
  shares = shares / shares.sum() * BLOCK
  whole = np.floor(shares).astype(np.int64)
  # A stable order, so that equal remainders go to the first sources.
  largest = np.argsort(whole - shares, kind='stable')
  whole[largest[: BLOCK - whole.sum()]] += 1
  for missing in np.flatnonzero(whole == 0):
    whole[np.argmax(whole)] -= 1
    whole[missing] = 1
  return whole


@functools.lru_cache(maxsize=8)
def _block(
  weights: tuple[float, ...], seed: int, attempt: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
  """Sources of a block's positions, and their ordinals within the source."""
  sizes = counts(weights)
  components = np.repeat(np.arange(len(sizes)), sizes)
  generator = np.random.default_rng([seed, block, STREAM + 1, attempt])
  components = generator.permutation(components)
  ordinals = np.empty(BLOCK, np.int64)
  for component, size in enumerate(sizes):
    ordinals[components == component] = np.arange(size)
  return components, ordinals


def draw(
  positions: np.ndarray, weights: tuple[float, ...], seed: int, attempt: int
) -> tuple[np.ndarray, np.ndarray]:
  """Source of each position, and its ordinal within that source.

  Args:
    positions: i64 [B], from 0.
    weights: of S sources, > 0.
    seed: of the order, >= 0.
    attempt: each has its own order.

  Returns:
    Sources i64 [B] in [0, S); and the number of earlier positions with the same
    source, i64 [B].
  """
  sizes = counts(weights)
  blocks, offsets = np.divmod(positions, BLOCK)
  components = np.empty(len(positions), np.int64)
  ordinals = np.empty(len(positions), np.int64)
  for block in np.unique(blocks).tolist():
    inside = blocks == block
    of_block, within = _block(weights, seed, attempt, block)
    chosen = of_block[offsets[inside]]
    components[inside] = chosen
    ordinals[inside] = block * sizes[chosen] + within[offsets[inside]]
  return components, ordinals
