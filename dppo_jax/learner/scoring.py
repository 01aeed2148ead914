"""Stats of tokens already sampled: the forward pass of training.

Everything here works on completion columns [B, R], R = T - P; the columns of
the prompt are never put through the head.
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dppo_jax.base import Array, Params, Rollout, TokenStats
from dppo_jax.learner.length_buckets import LengthBuckets
from dppo_jax.learner.train_step import join_rows, split_rows, take_rows
from dppo_jax.lm_head.fused_loss import head_stats
from dppo_jax.lm_head.inputs import VocabularyConfig
from dppo_jax.models.moe import Routing
from dppo_jax.models.policy import Policy
from dppo_jax.ops import log_probs as log_probs_lib


def completion_columns(tree: TokenStats, prompt_length: int) -> TokenStats:
  """[B, T, ...] leaves to their completion columns [B, R, ...]."""
  return jax.tree.map(lambda leaf: leaf[:, prompt_length:], tree)


def completion_hidden(
  policy: Policy,
  params: Params,
  tokens: Array,
  token_mask: Array,
  routes: Array | None = None,
  *,
  prompt_length: int,
  shared_rows: int,
) -> tuple[Array, Routing | None]:
  """States that predict the completion columns, and the routing.

  Args:
    policy: the model.
    params: its parameters.
    tokens: i32 [B, T].
    token_mask: bool [B, T].
    routes: integers [B, T, M, k], experts to replay (arXiv:2510.11370); None
      lets the routers choose.
    prompt_length: P.
    shared_rows: so many consecutive rows have one prompt, which is run once
      for them; 1 runs every row as a whole.

  Returns:
    States [B, R, D]; and a Routing of the tokens that predict another one, a
    shared prompt counted for every row, or None of a dense model.
  """
  # The last token predicts nothing, and a sampler need not have routed it.
  following = jnp.pad(token_mask[:, 1:], ((0, 0), (0, 1)))
  predicts = token_mask & following
  first = prompt_length
  if shared_rows == 1:
    hidden, routing = policy.apply_routed(params, tokens, predicts, routes)
    return log_probs_lib.predicting(hidden, first), routing
  split = None
  if routes is not None:
    split = (routes[::shared_rows, :first], routes[:, first:])
  return policy.apply_grouped_routed(
    params,
    tokens[::shared_rows, :first],
    token_mask[::shared_rows, :first],
    tokens[:, first:],
    predicts[:, first:],
    split,
  )


def score(
  policy: Policy,
  layout: VocabularyConfig,
  params: Params,
  rollout: Rollout,
  *,
  prompt_length: int,
  shared_rows: int,
  with_entropy: bool,
  with_hidden: bool,
) -> TokenStats:
  """Stats of `params` at the tokens and the recorded ids of a rollout.

  They are those of softmax over the support of the rollout, where it has one.

  Recorded routes are replayed. That is right for the policy that sampled, of
  which they are a part, and not for another, such as the reference of a KL
  penalty: hand in a rollout without them, and its routers choose.

  Returns:
    TokenStats of [B, R], 0.0 where masked.
  """
  hidden, _ = completion_hidden(
    policy,
    params,
    rollout.tokens,
    rollout.token_mask,
    rollout.routes,
    prompt_length=prompt_length,
    shared_rows=shared_rows,
  )
  recorded = completion_columns(rollout.stats, prompt_length)
  stats = head_stats(
    layout,
    policy.head(params),
    hidden,
    rollout.tokens[:, prompt_length:],
    rollout.completion_mask[:, prompt_length:],
    top_ids=recorded.top_ids,
    with_entropy=with_entropy,
    support=recorded.support,
  )
  return dataclasses.replace(stats, hidden=hidden if with_hidden else None)


def by_parts(
  mesh: Mesh,
  count: int,
  buckets: LengthBuckets,
  score_part: Callable[[Rollout], TokenStats],
  rollout: Rollout,
) -> TokenStats:
  """Scores so many equal parts of the rows one after another.

  A rollout batch is larger than what a device holds the scores of attention
  of; the parts are those that training takes.

  Args:
    mesh: where rows live.
    count: parts; divides the rows into whole groups.
    buckets: widths that a part is run at.
    score_part: of the rows of a part.
    rollout: all rows.
  """
  run = buckets.shortened(score_part)
  if count == 1:
    return run(rollout)
  order = None
  if buckets.reorders:
    order = buckets.order(rollout.token_mask)
    rollout = take_rows(mesh, rollout, order)
  stats = join_rows(jax.lax.map(run, split_rows(mesh, rollout, count)))
  if order is not None:
    stats = take_rows(mesh, stats, jnp.argsort(order))
  return stats


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
