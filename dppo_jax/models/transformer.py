"""Decoder-only transformer with the shape of Llama, Qwen2, Qwen3, Qwen3-MoE.

Layers are scanned, block by block where some are dense and some have experts:
a block is the shortest run of layers that repeats. A pass runs over *streams*:
a stream attends to itself and to the streams before it. One stream is plain
causal attention; two are a prompt and the completions that share it; a cache
is a stream already run.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dppo_jax import parallel
from dppo_jax.base import Array
from dppo_jax.models import cpu_bfloat16, layers, moe
from dppo_jax.models.attention.projections import Attention
from dppo_jax.models.attention.sources import KeySource

Streams = tuple[Array, ...]
KeyValues = tuple[Array, Array]

REMAT_POLICIES = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


class Layer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)).

  Attributes:
    is_sparse: the second part is routed experts.
    mesh: what they and the rows are laid over.
  """

  config: layers.TransformerConfig
  is_sparse: bool
  mesh: Mesh | None

  @nn.compact
  def __call__(
    self,
    streams: Streams,
    layer: Array | None,
    routes: Streams | None,
    cached: tuple[KeyValues, ...],
    cached_segments: tuple[Array, ...],
    rotary: tuple[Array, ...],
    segments: Streams,
    seen_segments: Streams,
    token_masks: Streams | None,
    write: Callable[[Array, Array], Array] | None = None,
  ) -> tuple[Streams, tuple[KeyValues, moe.Routing | None]]:
    """Runs the streams through the layer.

    Args:
      streams: each [B', S, D]; B' of an earlier one divides that of a later.
      layer: i32 [], number of this one in caches of all layers; or None.
      routes: experts of each stream, i32 [B', S, k], to replay; or None.
      cached: keys and values run before, seen by every stream, each [L, B',
        kv_heads, S', head_dim], or of this layer where `layer` is None.
      cached_segments: i32 [1 or B', S'] for each of them, ids of its tokens.
      rotary: f32 [B', S, 2, head_dim / 2] for each stream.
      segments: i32 [1 or B', S] for each stream, ids of its tokens: a token
        sees those of its own segment that are not later. 0 is padding.
      seen_segments: i32 [1 or B', 1 or S] for each stream, the segment that a
        token sees of every cache and earlier stream.
      token_masks: bool [B', S] for each stream, what statistics count.
      write: of a single stream, as in `Attention`: puts its keys and values
        into the last cache.

    Returns:
      The streams; the keys and values of the last one, or the last cache as
      written; and what the router did, None in a dense layer.
    """
    c = self.config
    attend: Any = Attention(c, self.mesh, name='attention')
    attention_norm = layers.RMSNorm(c, name='attention_norm')
    mlp_norm = layers.RMSNorm(c, name='mlp_norm')

    before = [
      (*key_values, ids, layer)
      for key_values, ids in zip(cached, cached_segments, strict=True)
    ]
    outputs: list[Array] = []
    own: Any = None
    for x, angle, ids, sought in zip(
      streams, rotary, segments, seen_segments, strict=True
    ):
      seen = [
        KeySource(keys, values, of_keys, sought, is_causal=False, layer=number)
        for keys, values, of_keys, number in before
      ]
      normed = attention_norm(x)
      if c.shard_attention == 'heads':
        normed = _whole(c, self.mesh, normed)
      mixed, own = attend(normed, angle, seen, ids, write)
      x += mixed
      if c.shard_sequence:
        x = _by_rows(c, self.mesh, x)
      outputs.append(x)
      before.append((*own, ids, None))
    inputs = tuple(_whole(c, self.mesh, mlp_norm(x)) for x in outputs)
    routing = None
    if self.is_sparse:
      routed = moe.RoutedFeedForward(c, self.mesh, name='mlp')
      added, routing = routed(inputs, routes, token_masks)
    else:
      mlp = layers.FeedForward(c, name='mlp')
      added = tuple(mlp(x) for x in inputs)
    pairs = zip(outputs, added, strict=True)
    streams = tuple(_by_rows(c, self.mesh, x + more) for x, more in pairs)
    return streams, (own, routing)


class Block(nn.Module):
  """Layers of two kinds, as they alternate."""

  config: layers.TransformerConfig
  mesh: Mesh | None

  @nn.compact
  def __call__(
    self,
    streams: Streams,
    layer: Array | None,
    routes: Streams | None,
    *broadcast: Any,
  ) -> tuple[Streams, tuple[KeyValues, moe.Routing | None]]:
    """As `Layer`; numbers, keys and routes have an axis of its layers."""
    own, routings = [], []
    kinds = moe.block_of(self.config)
    for i, is_sparse in enumerate(kinds):
      one = _layer_class(self.config)(
        self.config, is_sparse, self.mesh, name=f'layer_{i}'
      )
      number, given = None if layer is None else layer[i], None
      if is_sparse and routes is not None:
        given = tuple(x[len(routings)] for x in routes)
      streams, (key_values, routing) = one(streams, number, given, *broadcast)
      own.append(key_values)
      if is_sparse:
        routings.append(routing)
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *own)
    return streams, (
      stacked,
      jax.tree.map(lambda *xs: jnp.stack(xs), *routings) if routings else None,
    )


def _layer_class(config: layers.TransformerConfig) -> Any:
  if config.remat == 'none':
    return Layer
  # Between turns of the loop nothing merges what is computed again with what
  # was; between the layers of a block it must be kept from it.
  return nn.remat(
    Layer,
    policy=REMAT_POLICIES[config.remat],
    prevent_cse=len(moe.block_of(config)) > 1,
  )


def _by_rows(
  config: layers.TransformerConfig, mesh: Mesh | None, x: Array
) -> Array:
  """Splits rows of sequences, and their columns where the config says so.

  Of single tokens the compiler decides.

  While decoding the weights outweigh the activations: to add up activations
  that are split over the width is cheaper than to gather weights.
  """
  if x.shape[1] == 1:
    return x
  return parallel.constrain_rows(mesh, x, columns=config.shard_sequence)


def _whole(
  config: layers.TransformerConfig, mesh: Mesh | None, x: Array
) -> Array:
  """All columns of a device's rows, to be multiplied by what it has of weights.

  The compiler, left alone, may gather the weights of the others instead.
  """
  if not config.shard_sequence or x.shape[1] == 1:
    return x
  return parallel.constrain_rows(mesh, x)


class Transformer(nn.Module):
  """Embedding, scanned layers, final norm, head.

  Attributes:
    mesh: what rows and experts are laid over; None is one device.
    platform: of the devices, as `narrow.platform_of` has it.
  """

  config: layers.TransformerConfig
  mesh: Mesh | None
  platform: str

  def setup(self) -> None:
    c = self.config
    block = moe.block_of(c)
    turns = c.num_layers // len(block)
    scan: Any = nn.scan
    self.layers = scan(
      _layer_class(c) if len(block) == 1 else Block,
      variable_axes={'params': 0, 'lora': 0},
      split_rngs={'params': True},
      in_axes=(0, 0, *(nn.broadcast,) * 6),
      length=turns,
      unroll=min(c.scan_unroll, turns),
      metadata_params={nn.PARTITION_NAME: 'layers'},
      # The layers have no output that is alike in all; looking for some traces
      # them once more. To draw weights it stays: a seed draws others without.
      check_constancy_invariants=self.is_initializing(),
    )(c, *(block if len(block) == 1 else ()), self.mesh)
    init = nn.initializers.normal(c.init_scale)
    self.embedding: Any = self.param(
      'embedding',
      nn.with_logical_partitioning(init, ('vocab', 'embed')),
      (c.vocab_size, c.d_model),
    )
    self.final_norm = layers.RMSNorm(c)
    if not c.tied_head:
      self.head_kernel: Any = self.param(
        'head',
        nn.with_logical_partitioning(init, ('vocab', 'embed')),
        (c.vocab_size, c.d_model),
      )

  def __call__(
    self,
    tokens: Streams,
    positions: Streams,
    segments: Streams,
    seen_segments: Streams | None = None,
    cached: tuple[KeyValues, ...] = (),
    cached_segments: tuple[Array, ...] = (),
    token_masks: Streams | None = None,
    routes: Streams | None = None,
  ) -> tuple[Streams, KeyValues, moe.Routing | None]:
    """Final hidden states of every stream.

    Args:
      tokens: i32 [B', S] for each stream.
      positions: i32 [B', S] for each.
      segments: as in `Layer`.
      seen_segments: as in `Layer`; None is segment 1 for every token.
      cached: (keys, values), each [L, B', kv_heads, S', head_dim].
      cached_segments: as in `Layer`.
      token_masks: as in `Layer`.
      routes: i32 [B', S, M, k] for each stream, experts of the M sparse layers
        to replay; None lets the routers choose.

    Returns:
      Hidden states [B', S, D] after the final norm for each stream; keys and
      values [L, B', kv_heads, S, head_dim] of the last one; and what the
      routers did, None in a dense model.
    """
    streams = tuple(self.embed(ids) for ids in tokens)
    rotary = tuple(layers.rotary_factors(self.config, p) for p in positions)
    if routes is not None:
      routes = tuple(jnp.moveaxis(x, 2, 0) for x in routes)
    if seen_segments is None:
      seen_segments = (jnp.ones((1, 1), jnp.int32),) * len(streams)
    streams, (own, routing) = self.layers(
      streams,
      self._by_turn(jnp.arange(self.config.num_layers) if cached else None),
      self._by_turn(routes),
      cached,
      cached_segments,
      rotary,
      segments,
      seen_segments,
      token_masks,
    )
    if len(moe.block_of(self.config)) > 1:
      own, routing = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), (own, routing)
      )
    if routing is not None:
      routing = dataclasses.replace(
        routing, routes=tuple(jnp.moveaxis(x, 0, 2) for x in routing.routes)
      )
    return tuple(self.normalize(x) for x in streams), own, routing

  def embed(self, tokens: Array) -> Array:
    """i32 [B', S] -> [B', S, D]."""
    # Rows are cast, not the table: a copy of it is a gigabyte.
    table = cpu_bfloat16.bits(self.embedding, self.platform)
    rows = cpu_bfloat16.unpack(jnp.take(table, tokens, axis=0))
    return _by_rows(self.config, self.mesh, rows.astype(self.config.dtype))

  def normalize(self, x: Array) -> Array:
    """The norm before the head."""
    return self.final_norm(x)

  def _by_turn(self, tree: Any) -> Any:
    """Splits the axis of layers into turns of the loop and layers of one."""
    block = moe.block_of(self.config)
    if len(block) == 1:
      return tree
    turns = self.config.num_layers // len(block)
    return jax.tree.map(lambda x: x.reshape(turns, -1, *x.shape[1:]), tree)

  def head(self) -> Array:
    """The head [V, D]; logits are hidden @ head.T."""
    return self.embedding if self.config.tied_head else self.head_kernel
