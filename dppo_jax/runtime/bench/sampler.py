"""The tail of a decode step, against the product that makes its logits."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dppo_jax import parallel
from dppo_jax.base import Array
from dppo_jax.ops import products
from dppo_jax.ops.vocabulary_shard import VocabularyAxes
from dppo_jax.sampling.tail import draw_and_record

PRODUCT = 'head product'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerShape:
  """Sizes of the problem.

  Attributes:
    rows: B.
    width: D.
    vocabulary: V.
    top_k: K.
    dtype: of states and head.
  """

  rows: int
  width: int
  vocabulary: int
  top_k: int
  dtype: str


def make_variants(shape: SamplerShape) -> Mapping[str, Callable[[], Any]]:
  """The product, our tail with and without records, and the usual tail."""
  key = jax.random.PRNGKey(0)
  dtype = jnp.dtype(shape.dtype)
  size = (shape.vocabulary, shape.width)
  head = (0.05 * jax.random.normal(key, size)).astype(dtype)
  hidden = jax.random.normal(key, (shape.rows, shape.width)).astype(dtype)
  uniform = jax.random.uniform(key, (shape.rows,))
  mesh = parallel.make_mesh(1, 1, 1, jax.devices()[:1])
  axes = VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)

  @jax.jit
  def project(hidden: Array, head: Array) -> Array:
    return products.einsum_f32('bd,vd->bv', hidden, head)

  def tail(top_k: int) -> Callable[[Array, Array], Any]:
    def run(logits: Array, uniform: Array) -> Any:
      return draw_and_record(
        axes, logits, uniform, temperature=1.0, top_k=top_k
      )

    return jax.jit(run)

  @jax.jit
  def usual(logits: Array, key: Array) -> Any:
    tokens = jax.random.categorical(key, logits)
    law = jax.nn.log_softmax(logits)
    sampled = jnp.take_along_axis(law, tokens[:, None], axis=1)
    return tokens, sampled, jax.lax.top_k(law, shape.top_k)

  logits = project(hidden, head)
  record, bare = tail(shape.top_k), tail(0)
  return {
    PRODUCT: lambda: project(hidden, head),
    'tail': lambda: record(logits, uniform),
    'tail, no top-K': lambda: bare(logits, uniform),
    'categorical, log_softmax, top_k': lambda: usual(logits, key),
  }
