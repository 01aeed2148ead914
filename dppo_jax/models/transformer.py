"""Decoder-only transformer with the shape of Llama, Qwen2 and Qwen3.

Layers are scanned. A pass runs over *streams*: a stream attends to itself and
to the streams before it. One stream is plain causal attention; two are a
prompt and the completions that share it; a cache is a stream already run.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dppo_jax.base import Array
from dppo_jax.models import attention, layers

Streams = tuple[Array, ...]
KeyValues = tuple[Array, Array]

REMAT_POLICIES = {
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


class Layer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  config: layers.TransformerConfig

  @nn.compact
  def __call__(
    self,
    streams: Streams,
    cached: tuple[KeyValues, ...],
    cached_masks: tuple[Array, ...],
    angles: tuple[Array, ...],
    masks: tuple[Array, ...],
  ) -> tuple[Streams, KeyValues]:
    """Runs the streams through the layer.

    Args:
      streams: each [B', S, D]; B' of an earlier one divides that of a later.
      cached: keys and values run before, seen by every stream.
      cached_masks: bool [1 or B', 1, S'] for each of them.
      angles: f32 [B', S, head_dim / 2] for each stream.
      masks: bool [1 or B', S, S] for each stream: what it sees of itself. Its
        last row is what later streams see of it.

    Returns:
      The streams, and the keys and values of the last one.
    """
    c = self.config
    attend: Any = attention.Attention(c, name='attention')
    attention_norm = layers.RMSNorm(c, name='attention_norm')
    mlp_norm = layers.RMSNorm(c, name='mlp_norm')
    mlp = layers.FeedForward(c, name='mlp')

    seen = [
      attention.Segment(keys, values, mask)
      for (keys, values), mask in zip(cached, cached_masks, strict=True)
    ]
    outputs: list[Array] = []
    own: Any = None
    for x, angle, mask in zip(streams, angles, masks, strict=True):
      mixed, own = attend(attention_norm(x), angle, seen, mask)
      x = x + mixed
      outputs.append(x + mlp(mlp_norm(x)))
      keys, values = own
      seen.append(attention.Segment(keys, values, mask[:, -1:]))
    return tuple(outputs), own


class Transformer(nn.Module):
  """Embedding, scanned layers, final norm, head."""

  config: layers.TransformerConfig

  def setup(self) -> None:
    c = self.config
    layer: Any = Layer
    if c.remat != 'none':
      layer = nn.remat(Layer, policy=REMAT_POLICIES[c.remat], prevent_cse=False)
    scan: Any = nn.scan
    self.layers = scan(
      layer,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
      length=c.num_layers,
      unroll=c.layers_a_loop,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c)
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
    masks: Streams,
    cached: tuple[KeyValues, ...] = (),
    cached_masks: tuple[Array, ...] = (),
  ) -> tuple[Streams, KeyValues]:
    """Final hidden states of every stream.

    Args:
      tokens: i32 [B', S] for each stream.
      positions: i32 [B', S] for each.
      masks: as in `Layer`.
      cached: (keys, values), each [L, B', S', kv_heads, head_dim].
      cached_masks: as in `Layer`.

    Returns:
      Hidden states [B', S, D] after the final norm for each stream, and keys
      and values [L, B', S, kv_heads, head_dim] of the last one.
    """
    table = self.embedding.astype(self.config.dtype)
    streams = tuple(jnp.take(table, ids, axis=0) for ids in tokens)
    angles = tuple(layers.rotary_angles(self.config, p) for p in positions)
    streams, own = self.layers(streams, cached, cached_masks, angles, masks)
    return tuple(self.final_norm(x) for x in streams), own

  def head(self) -> Array:
    """The head [V, D]; logits are hidden @ head.T."""
    return self.embedding if self.config.tied_head else self.head_kernel
