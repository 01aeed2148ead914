"""Queries and keys that every implementation of attention is compared on."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.models.attention import materialised
from dppo_jax.models.attention.sources import KeySource


class Case(NamedTuple):
  """Arrays of a call, of prompts and of the completions that share them.

  Attributes:
    arrays: query, prompt keys and values, own keys and values; all f32.
    ids: of prompt keys, of prompt keys sought, of own tokens.
  """

  arrays: tuple
  ids: tuple

  def sources(self, arrays):
    prompt, sought, own = self.ids
    return [
      KeySource(*arrays[1:3], prompt, sought, is_causal=False),
      KeySource(*arrays[3:5], own, own, is_causal=True),
    ]


def normal(*shape, seed=0):
  rng = np.random.default_rng((seed, *shape))
  return jnp.asarray(rng.standard_normal(shape), jnp.float32)


@functools.cache
def shared_prompt(
  prompt_length=37, length=53, heads=4, kv_heads=2, head_dim=8, packed=True
):
  """Two prompts, one padded; six completions, of one none, of one token.

  One row is packed: two segments, as two completions in one row have them.
  """
  group, padding = 3, np.array([0, prompt_length // 2])
  rows, lengths = 2 * group, np.array([1.0, 0.0, 0.2, 0.0, 0.75, 0.4]) * length
  lengths = lengths.astype(int)
  lengths[3] = 1
  prompt = np.arange(prompt_length) >= padding[:, None]
  own = (np.arange(length) < lengths[:, None]).astype(np.int32)
  if packed:
    own[4, length // 3 :] *= 2
  keys, values = (
    [normal(n, kv_heads, size, head_dim, seed=seed) for seed in (1, 2)]
    for n, size in ((2, prompt_length), (rows, length))
  )
  query = normal(rows, length, heads, head_dim)
  ids = prompt.astype(np.int32), np.minimum(own, 1), own
  return Case((query, *keys, *values), ids)


def outputs_and_gradients(case, attend, arrays=None):
  """[B, Q, H, head_dim], and gradients of a random linear function of it."""
  arrays = case.arrays if arrays is None else arrays
  weights = normal(*arrays[0].shape, seed=9)

  @jax.jit
  def run(arrays):
    def loss(arrays):
      out = attend(arrays[0], case.sources(arrays))
      return jnp.sum(out.astype(jnp.float32) * weights), out

    (_, out), gradients = jax.value_and_grad(loss, has_aux=True)(arrays)
    return out, gradients

  return run(arrays)


def agree(case, attend, atol=1e-6):
  """Checks an implementation against the materialised one."""
  got = jax.device_get(outputs_and_gradients(case, attend))
  expected = _materialised(case)
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    scale = float(np.max(np.abs(y)))
    np.testing.assert_allclose(x, y, atol=atol * max(1.0, scale))
  return got


_of_cases = {}  # By id: the case, which so lives on, and its outputs.


def _materialised(case):
  if id(case) not in _of_cases:
    found = outputs_and_gradients(case, materialised.attend)
    _of_cases[id(case)] = case, jax.device_get(found)
  return _of_cases[id(case)][1]


def by_loops(query, sources):
  """One row, query and head at a time, in float64."""
  query = np.asarray(query, np.float64)
  out = np.zeros(query.shape)
  rows, _, heads, head_dim = query.shape
  for b, i, h in np.ndindex(*query.shape[:3]):
    total, summed = 0.0, np.zeros(head_dim)
    for source in sources:
      keys = np.asarray(source.keys, np.float64)
      values = np.asarray(source.values, np.float64)
      entries, kv_heads, size, _ = keys.shape
      e, k = b // (rows // entries), h // (heads // kv_heads)
      seen = np.broadcast_to(source.key_segments, (entries, size))[e]
      sought = np.broadcast_to(source.query_segments, query.shape[:2])[b, i]
      mask = (seen == sought) & (seen != 0)
      if source.is_causal:
        mask &= np.arange(size) <= i
      scores = keys[e, k] @ query[b, i, h] / np.sqrt(head_dim)
      weights = np.where(mask, np.exp(scores), 0.0)
      total += weights.sum()
      summed += weights @ values[e, k]
    if total:
      out[b, i, h] = summed / total
  return out
