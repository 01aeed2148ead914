"""Ending completions after they were sampled."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array, Rollout


def cut(
  rollout: Rollout,
  num_tokens: Array | np.ndarray,
  stopped: Array | np.ndarray,
  *,
  prompt_length: int,
  pad_id: int,
) -> Rollout:
  """Takes away what comes after the first `num_tokens` of each completion.

  Args:
    rollout: B rows.
    num_tokens: i32 [B], tokens of the completion to keep; at most R.
    stopped: bool [B], rows that ended here and so are not truncated.
    prompt_length: P.
    pad_id: what stands in the freed columns.

  Returns:
    The rollout with shorter completions: masks False, tokens `pad_id`,
    stats and routes 0 in the freed columns.
  """
  rows, columns = rollout.tokens.shape
  chex.assert_shape([num_tokens, stopped], (rows,))
  end = prompt_length + jnp.asarray(num_tokens)
  kept = jnp.arange(columns)[None] < end[:, None]

  def clear(values: Array) -> Array:
    mask = kept.reshape(kept.shape + (1,) * (values.ndim - 2))
    return jnp.where(mask, values, jnp.zeros_like(values))

  return dataclasses.replace(
    rollout,
    tokens=jnp.where(kept, rollout.tokens, pad_id),
    token_mask=rollout.token_mask & kept,
    completion_mask=rollout.completion_mask & kept,
    stats=jax.tree.map(clear, rollout.stats),
    routes=jax.tree.map(clear, rollout.routes),
    truncated=rollout.truncated & ~stopped,
  )
