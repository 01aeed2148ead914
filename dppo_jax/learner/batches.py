"""Rewards and a rollout to the batch of a train step."""

import dataclasses

import chex
import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Batch, Metrics, Rollout, TokenStats
from dppo_jax.ops.advantages import ADVANTAGES
from dppo_jax.ops.masking import masked_mean

MAX_TURNS_SHOWN = 8  # Turns that have metrics of their own.


def make_batch(
  rollout: Rollout,
  rewards: Array,
  *,
  group_size: int,
  estimator: str,
  recomputed: TokenStats | None,
  reference: TokenStats | None,
) -> Batch:
  """Broadcasts one advantage a completion to its tokens.

  Args:
    rollout: B = N·G rows, groups adjoin.
    rewards: f32 [B].
    group_size: G.
    estimator: a key of `ADVANTAGES`.
    recomputed: the trainer's own stats before the first update.
    reference: stats of the frozen reference.
  """
  chex.assert_rank(rewards, 1)
  grouped = rewards.astype(jnp.float32).reshape(-1, group_size)
  advantages = ADVANTAGES[estimator](grouped).reshape(-1)
  return Batch(
    tokens=rollout.tokens,
    token_mask=rollout.token_mask,
    completion_mask=rollout.completion_mask,
    advantages=jnp.where(rollout.completion_mask, advantages[:, None], 0.0),
    rollout=rollout.stats,
    recomputed=recomputed,
    reference=reference,
    routes=rollout.routes,
    turn=None if rollout.conversation is None else rollout.conversation.turn,
  )


def keep_groups(batch: Batch, kept: Array, group_size: int) -> Batch:
  """Takes groups out of the batch: none of their tokens is trained on.

  Args:
    batch: B = N·G rows, groups adjoin.
    kept: bool [N].
    group_size: G.

  Returns:
    The batch; in the other groups `completion_mask` is False, and advantages
    and stats are 0, as they are wherever it is.
  """
  return keep_rows(batch, jnp.repeat(kept, group_size))


def keep_rows(batch: Batch, kept: Array) -> Batch:
  """Takes completions out of the batch; otherwise as `keep_groups`.

  They are in no denominator of an aggregation either, of tokens or sequences.
  What the others' advantages were measured against stays.

  Args:
    batch: B rows.
    kept: bool [B].
  """
  chex.assert_shape(kept, batch.tokens.shape[:1])

  def clear(values: Array) -> Array:
    mask = kept.reshape(kept.shape + (1,) * (values.ndim - 1))
    return jnp.where(mask, values, jnp.zeros_like(values))

  stats = (batch.rollout, batch.recomputed, batch.reference)
  rollout, recomputed, reference = jax.tree.map(clear, stats)
  return dataclasses.replace(
    batch,
    completion_mask=clear(batch.completion_mask),
    advantages=clear(batch.advantages),
    rollout=rollout,
    recomputed=recomputed,
    reference=reference,
  )


def rollout_metrics(
  rollout: Rollout, rewards: Array, group_size: int, max_turns: int = 0
) -> Metrics:
  """Metrics of the batch before any update.

  Args:
    rollout: B rows.
    rewards: f32 [B].
    group_size: G.
    max_turns: of conversations.

  Returns:
    `rewards/mean`, `rewards/std`; `rewards/zero_variance_groups`, share of
    prompts that teach nothing; `rollout/length_mean` and `_max`, tokens;
    `rollout/truncated`, share; `rollout/entropy_mean`, nats per token;
    `rollout/topk_mass`, mean mass of the K recorded tokens; `rollout/support`,
    mean number of tokens that could be sampled, and `rollout/support_full`,
    share of tokens where these were as many as may be; and those of
    conversations.
  """
  mask = rollout.completion_mask
  lengths = jnp.sum(mask, axis=1, dtype=jnp.float32)
  grouped = rewards.reshape(-1, group_size)
  same = jnp.max(grouped, axis=1) == jnp.min(grouped, axis=1)
  stats = rollout.stats
  metrics = {
    'rewards/mean': jnp.mean(rewards),
    'rewards/std': jnp.std(rewards),
    'rewards/zero_variance_groups': jnp.mean(same.astype(jnp.float32)),
    'rollout/length_mean': jnp.mean(lengths),
    'rollout/length_max': jnp.max(lengths),
    'rollout/truncated': jnp.mean(rollout.truncated.astype(jnp.float32)),
  }
  if stats.entropy is not None:
    metrics['rollout/entropy_mean'] = masked_mean(stats.entropy, mask)
  if stats.top_log_probs is not None:
    mass = jnp.sum(jnp.exp(stats.top_log_probs), axis=-1)
    metrics['rollout/topk_mass'] = masked_mean(mass, mask)
  if stats.support is not None:
    sizes = jnp.sum(stats.support >= 0, axis=-1, dtype=jnp.float32)
    full = (sizes == stats.support.shape[-1]).astype(jnp.float32)
    metrics['rollout/support'] = masked_mean(sizes, mask)
    metrics['rollout/support_full'] = masked_mean(full, mask)
  return metrics | _conversation_metrics(rollout, rewards, max_turns)


def _conversation_metrics(
  rollout: Rollout, rewards: Array, max_turns: int
) -> Metrics:
  """Metrics of several turns; none where there is no environment.

  Returns:
    `rollout/turns_mean`; `rollout/told_share`, tokens of replies among those
    of completions; `rollout/replies_cut`, share of conversations with a reply
    that was too long; `rollout/malformed_messages`, those that an environment
    could not read, per conversation; `rewards/mean_turns_…`, of conversations
    of so many turns, and `rollout/share_turns_…`, how many they are.
  """
  if rollout.conversation is None:
    return {}
  turns = jnp.max(rollout.conversation.turn, axis=1)
  sampled = jnp.sum(rollout.completion_mask, dtype=jnp.float32)
  # Everything from the first sampled token on: of a row, its prompt aside.
  begun = jnp.cumsum(rollout.completion_mask, axis=1) > 0
  told = rollout.token_mask & begun & ~rollout.completion_mask
  told = jnp.sum(told, dtype=jnp.float32)
  cut = rollout.conversation.replies_cut > 0
  metrics = {
    'rollout/turns_mean': jnp.mean(turns.astype(jnp.float32)),
    'rollout/told_share': told / jnp.maximum(told + sampled, 1.0),
    'rollout/replies_cut': jnp.mean(cut.astype(jnp.float32)),
    'rollout/malformed_messages': jnp.mean(
      rollout.conversation.malformed.astype(jnp.float32)
    ),
  }
  for turn in range(1, min(max_turns, MAX_TURNS_SHOWN) + 1):
    of_turn = turns == turn
    share = jnp.mean(of_turn.astype(jnp.float32))
    metrics[f'rollout/share_turns_{turn}'] = share
    metrics[f'rewards/mean_turns_{turn}'] = masked_mean(rewards, of_turn)
  return metrics
