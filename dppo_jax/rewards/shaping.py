"""What the length of a completion adds to its reward, in training only.

Lengths are tokens, the end token included. Each function takes i [N, G]
lengths and bool [N, G], which answers are right, and returns f64 [N, G] to add.
"""

from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from dppo_jax.rewards.terms import Term, parse_terms

if TYPE_CHECKING:  # It imports JAX, which a verifier process must not.
  from dppo_jax.base import RewardFn


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapingConfig:
  """What the shapings read.

  Attributes:
    terms: weighted keys of `SHAPINGS`.
    max_length: L_max, tokens; the limit of the sampler.
    cache: L_cache, tokens below L_max over which the penalty grows.
  """

  terms: tuple[Term, ...]
  max_length: int
  cache: int


def none(
  lengths: np.ndarray, right: np.ndarray, config: ShapingConfig
) -> np.ndarray:
  """Nothing."""
  del right, config
  return np.zeros(lengths.shape)


def overlong(
  lengths: np.ndarray, right: np.ndarray, config: ShapingConfig
) -> np.ndarray:
  """DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13), in [-1, 0].

  0 up to L_max - L_cache; ((L_max - L_cache) - L) / L_cache up to L_max; -1
  beyond.
  """
  del right
  start = config.max_length - config.cache
  return np.clip((start - lengths) / config.cache, -1.0, 0.0)


def brief(
  lengths: np.ndarray, right: np.ndarray, config: ShapingConfig
) -> np.ndarray:
  """Kimi k1.5's length reward (arXiv:2501.12599, section 2.3.3).

  lambda = 1/2 - (L - min L) / (max L - min L) within the group: lambda where
  the answer is right, min(0, lambda) elsewhere; 0 where all are as long. What
  else the verifiers add, such as a reward for the format, makes none right.
  """
  del config
  least = lengths.min(axis=1, keepdims=True)
  spread = lengths.max(axis=1, keepdims=True) - least
  share = (lengths - least) / np.maximum(spread, 1)
  rate = np.where(spread > 0, 0.5 - share, 0.0)
  return np.where(right, rate, np.minimum(rate, 0.0))


SHAPINGS: dict[str, 'RewardFn'] = {
  'none': none,
  'overlong': overlong,
  'brief': brief,
}


def parse_shaping(text: str) -> tuple[Term, ...]:
  """Reads `rewards.shaping`, a sum of rows: 'overlong + 0.2 * brief'.

  Raises:
    ValueError: it is none.
  """
  return parse_terms('rewards.shaping', text, SHAPINGS, functions=False)


def shape(
  lengths: Sequence[int] | np.ndarray,
  right: Sequence[bool] | np.ndarray,
  group_size: int,
  config: ShapingConfig,
) -> np.ndarray:
  """What to add to the rewards of a rollout.

  Args:
    lengths: i [B], tokens of the completions.
    right: bool [B], which answers are right, of `verdicts.is_right`.
    group_size: G; completions of a prompt adjoin.
    config: the shapings.

  Returns:
    f64 [B].
  """
  grouped = np.asarray(lengths).reshape(-1, group_size)
  correct = np.asarray(right).reshape(-1, group_size)
  if correct.dtype != bool:
    raise TypeError(
      f'right: got {correct.dtype}; bool, of verdicts.is_right: a sum of'
      ' rewards does not say which answers are right.'
    )
  total = np.zeros(grouped.shape)
  for weight, name in config.terms:
    total += weight * SHAPINGS[name](grouped, correct, config)
  return total.reshape(-1)
