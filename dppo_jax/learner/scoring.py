"""What a policy says of tokens already sampled: the forward pass of training.

Everything here works on completion columns [B, R], R = T - P; the columns of
the prompt are never put through the head.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Batch, Params, Rollout, TokenStats
from dppo_jax.models.policy import Policy
from dppo_jax.ops import log_probs as log_probs_lib
from dppo_jax.ops.vocabulary import head_stats
from dppo_jax.ops.vocabulary_pass import VocabularyConfig


def completion_columns(tree: TokenStats, prompt_length: int) -> TokenStats:
  """[B, T, ...] leaves to their completion columns [B, R, ...]."""
  return jax.tree.map(lambda leaf: leaf[:, prompt_length:], tree)


def completion_hidden(
  policy: Policy,
  params: Params,
  tokens: Array,
  token_mask: Array,
  *,
  prompt_length: int,
  shared_rows: int,
) -> Array:
  """States that predict the completion columns: [B, R, D].

  Args:
    policy: the model.
    params: its parameters.
    tokens: i32 [B, T].
    token_mask: bool [B, T].
    prompt_length: P.
    shared_rows: so many consecutive rows have one prompt, which is run once
      for them; 1 runs every row as a whole.
  """
  if shared_rows == 1:
    hidden = policy.apply(params, tokens, token_mask)
    return log_probs_lib.predicting(hidden, prompt_length)
  return policy.apply_grouped(
    params,
    tokens[::shared_rows, :prompt_length],
    token_mask[::shared_rows, :prompt_length],
    tokens[:, prompt_length:],
  )


def score(
  policy: Policy,
  layout: VocabularyConfig,
  params: Params,
  batch: Batch | Rollout,
  *,
  prompt_length: int,
  shared_rows: int,
  with_entropy: bool,
  with_hidden: bool,
) -> TokenStats:
  """Stats of `params` at the tokens and the recorded ids of a batch.

  Returns:
    TokenStats of [B, R], 0.0 where masked.
  """
  hidden = completion_hidden(
    policy,
    params,
    batch.tokens,
    batch.token_mask,
    prompt_length=prompt_length,
    shared_rows=shared_rows,
  )
  top_ids = batch.rollout.top_ids
  stats = head_stats(
    layout,
    policy.head(params),
    hidden,
    batch.tokens[:, prompt_length:],
    batch.completion_mask[:, prompt_length:],
    top_ids=None if top_ids is None else top_ids[:, prompt_length:],
    with_entropy=with_entropy,
  )
  return dataclasses.replace(stats, hidden=hidden if with_hidden else None)


def aligned(stats: TokenStats, mask: Array) -> TokenStats:
  """Stats of completion columns [B, R] as they stand in a Batch [B, T].

  Args:
    stats: [B, R] leaves.
    mask: bool [B, T], completion tokens; the rest becomes 0.
  """

  def align(leaf: Array) -> Array:
    leaf = log_probs_lib.align(leaf, mask.shape[1])
    keep = mask.reshape(mask.shape + (1,) * (leaf.ndim - 2))
    return jnp.where(keep, leaf, jnp.zeros_like(leaf))

  return jax.tree.map(align, stats)
