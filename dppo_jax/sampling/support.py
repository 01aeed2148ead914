"""The tokens that a rollout may sample: a top-K, a nucleus, a min-p.

A filter changes the law that is sampled, mu, so that the trainer has to know
which tokens it left: their ids are recorded, and every policy of the loss is
softmax over them alone. Ids and not a bound on logits: the trainer's products
round otherwise than those of decoding, so that a bound recomputed there would
let tokens in and out. Hence at most K of them.
"""

import dataclasses
import math

import chex
import jax.numpy as jnp

from dppo_jax.base import Array

OUTSIDE = -1  # In place of an id, where the support has fewer than K.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Support:
  """A filter: a token is in the support if all three say so.

  Each is a set of its own of softmax(z / temperature), so their order does not
  matter. The likeliest token is in all of them.

  Attributes:
    top_k: K >= 1: the K likeliest. As many ids are recorded per token.
    top_p: in (0, 1]: the smallest set of likeliest tokens with that mass
      (Holtzman et al., arXiv:1904.09751); 1 takes all.
    min_p: in [0, 1]: those with at least this share of the probability of the
      likeliest (Nguyen et al., arXiv:2407.01082); 0 takes all.

  Raises:
    ValueError: one of them leaves no token.
  """

  top_k: int
  top_p: float
  min_p: float

  def __post_init__(self):
    if self.top_k < 1 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
      raise ValueError(
        f'sampling.support: {self} leaves no token; top_k >= 1, top_p in'
        ' (0, 1] and min_p in [0, 1] do.'
      )

  def keeps(self, logits: Array, total: Array) -> Array:
    """Which of the likeliest tokens are in the support: bool [B, K].

    Args:
      logits: f32 [B, K] over the temperature, descending.
      total: f32 [B], sum of exp(z - largest) over the vocabulary.

    Returns:
      True, then False: the likeliest come first. -inf is not in it.
    """
    chex.assert_rank([logits, total], [2, 1])
    below = logits - logits[:, :1]
    kept = logits > -jnp.inf
    if self.top_p < 1.0:
      mass = jnp.exp(below) / total[:, None]
      kept &= jnp.cumsum(mass, axis=1) - mass < self.top_p
    if self.min_p > 0.0:
      kept &= below >= math.log(self.min_p)
    # A filter of one token at least, whatever was rounded.
    return kept | (jnp.arange(logits.shape[1])[None] == 0)
