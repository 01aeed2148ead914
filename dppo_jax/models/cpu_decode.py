"""Decoding without a loop over layers, for a CPU.

A loop takes the weights of a layer, and its keys and values, out of arrays of
all layers: an accelerator reads them where they lie, a CPU copies them first.
So where decoding runs on a CPU every layer has arrays of its own, made once
before the first token. Elsewhere the loop compiles faster and loses nothing.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dppo_jax.base import Array, Params
from dppo_jax.models import cpu_kernels, layers, moe
from dppo_jax.models.transformer import KeyValues, Layer, Transformer


@flax.struct.dataclass
class UnrolledParams:
  """Weights as unrolled decoding reads them.

  Attributes:
    layers: Flax collections of each of the L layers, kernels turned.
    rest: parameters of the embedding, the final norm and the head.
  """

  layers: tuple[Params, ...]
  rest: Params


def unroll(config: layers.TransformerConfig, params: Params) -> UnrolledParams:
  """Copies the weights of every layer out of their stack.

  Args:
    config: shape of the model.
    params: nested dict, layers stacked.
  """
  rest = dict(params)
  stacked = cast(Any, rest.pop('layers'))
  kinds = moe.block_of(config)
  each = []
  for i in range(config.num_layers):
    turn, place = divmod(i, len(kinds))
    block = stacked if len(kinds) == 1 else stacked[f'layer_{place}']
    others, kernels = cpu_kernels.turn(
      jax.tree.map(lambda x, t=turn: x[t], block)
    )
    each.append({'params': others, 'turned': kernels})
  # Once: the compiler would turn them again at every token.
  return jax.lax.optimization_barrier(UnrolledParams(tuple(each), rest))


def split_layers(stacked: KeyValues) -> tuple[KeyValues, ...]:
  """(keys, values) [L, ...] of all layers -> L pairs [...]."""
  keys, values = stacked
  return tuple(zip(keys, values, strict=True))


def decode(
  model: Transformer,
  params: UnrolledParams,
  tokens: Array,
  positions: Array,
  cached: tuple[tuple[KeyValues, ...], ...],
  cached_segments: tuple[Array, ...],
  write: Callable[[Array, Array], Array],
) -> tuple[Array, tuple[KeyValues, ...], Array | None]:
  """Runs one token a row through every layer.

  Args:
    model: whose parameters they are.
    params: of `unroll`.
    tokens: i32 [B, 1].
    positions: i32 [B, 1].
    cached: caches, each of L pairs of keys and values.
    cached_segments: i32 [1 or B', S'] for each of them, 0 where hidden; the
      columns of the tokens are not.
    write: (keys or values of the last cache, those [B, kv_heads, 1, head_dim]
      of the tokens) -> the former with the latter.

  Returns:
    Hidden [B, 1, D] after the final norm, the last cache as written, and the
    experts that the tokens were given, i32 [B, 1, M, k]; None in a dense model.

  Written before it is read, a cache is updated in place: the reads are loops,
  and XLA would keep a copy for one that it cannot order before the write.
  """
  config: layers.TransformerConfig = model.config
  mesh: Mesh | None = model.mesh
  rest = {'params': params.rest}
  x: Any = model.apply(rest, tokens, method='embed')
  rotary = layers.rotary_factors(config, positions)
  one = jnp.ones((1, 1), jnp.int32)
  kinds = moe.block_of(config)
  written, routes = [], []
  for i, variables in enumerate(params.layers):
    layer = Layer(config, kinds[i % len(kinds)], mesh)
    ran: Any = layer.apply(
      variables,
      (x,),
      None,
      None,
      tuple(cache[i] for cache in cached),
      cached_segments,
      (rotary,),
      (one,),
      (one,),
      None,
      write,
    )
    (x,), (key_values, routing) = ran
    written.append(key_values)
    if routing is not None:
      routes.append(routing.routes[0])
  x = model.apply(rest, x, method='normalize')
  return x, tuple(written), jnp.stack(routes, axis=2) if routes else None
