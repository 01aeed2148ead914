"""What a forward pass over finished rollouts says of their tokens."""

import functools

import jax

from dppo_jax.base import Rollout, TokenStats
from dppo_jax.learner import scoring
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.policy import make_policy
from tests.support import factories, runs


def score(
  config: TransformerConfig,
  rollout: Rollout,
  *,
  prompt_length: int,
  shared_rows: int,
) -> TokenStats:
  """Statistics of `make_params`, aligned with the columns of the rollout."""
  scorer = functools.partial(
    scoring.score,
    make_policy(config),
    factories.vocabulary_config(),
    prompt_length=prompt_length,
    shared_rows=shared_rows,
    with_entropy=True,
    with_hidden=False,
  )
  with runs.quick_compilation():
    stats = jax.jit(scorer)(factories.make_params(config), rollout)
  return scoring.aligned(stats, rollout.completion_mask)
