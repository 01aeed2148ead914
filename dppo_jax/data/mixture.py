"""Mixtures: which source each prompt comes from, a function of its position.

Positions fall into blocks. A block holds every source in its share, exactly,
in an order drawn for the block. So the source at a position, and how many
prompts of that source came before it, follow from the position alone.
"""

from collections.abc import Sequence
import functools

import numpy as np

BLOCK = 1000  # Positions; shares are exact to a thousandth.
STREAM = 2  # Keeps these draws apart from others of the same seed.


def counts(weights: Sequence[float]) -> np.ndarray:
  """Positions a block of each source: i64 [S], their sum is `BLOCK`.

  Largest remainders; every source has at least one.

  Args:
    weights: > 0, of any sum; at most `BLOCK` of them.

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
  """The sources of a block's positions, and their ordinals within it."""
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
  """The source of each position, and its place among those of that source.

  Args:
    positions: i64 [B], from 0.
    weights: of S sources, > 0.
    seed: of the order, >= 0.
    attempt: each has an order of its own.

  Returns:
    Sources i64 [B] in [0, S); and how many positions before this one have the
    same source, i64 [B].
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
