"""A policy without a model, for tests of the loops around it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.models.policy import Cache, Policy
from tests.support import factories

# All but the padding and the end, which have no mass to speak of.
FLAT = np.where(np.arange(8) < 2, 1e-30, 1 / 6).astype(np.float32)


def make(note):
  """A policy that is one distribution, until the end is due.

  The state is the number of tokens drawn before. Parameters: `head` [1, 8],
  logits at every position; `end_after`, the draw that ends every row. `note` is
  called with the number of every decode step.
  """

  def prefill(params, prompts, group_size, num_columns):
    del params, num_columns
    num_prompts = prompts.tokens.shape[0]
    empty = jnp.zeros((1, num_prompts * group_size, 1, 1, 1))
    cache = Cache(
      prompt=(empty, empty), prompt_mask=prompts.mask, completion=(empty, empty)
    )
    return jnp.zeros((num_prompts, 1)), cache

  def step_on(params, cache, tokens, step):
    del params
    jax.debug.callback(lambda step: note(int(step)), step)
    return jnp.full((tokens.shape[0], 1), step + 1.0), cache

  def logits(params, hidden):
    ends = jnp.arange(8)[None] == factories.EOS_ID
    ends = jnp.where(ends, 0.0, -jnp.inf)
    return jnp.where(hidden < params['end_after'] - 1, params['head'], ends)

  missing: Any = None
  return Policy(
    init=missing,
    apply=missing,
    prefill=prefill,
    for_decoding=lambda params: params,
    decode=step_on,
    head=missing,
    logits=logits,
    apply_routed=missing,
    apply_grouped_routed=missing,
    slots=missing,
  )
