"""Routed experts as Qwen3-MoE defines them (arXiv:2505.09388).

A router gives each token k of E feed-forward networks. Tokens are sorted by
expert and every expert multiplies its own. The routes may also be given, those
that the sampler took (rollout router replay, arXiv:2510.11370): the gates are
then the router's of today at the experts of then.
"""

from collections.abc import Sequence
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import Array
from dppo_jax.models import layers
from dppo_jax.models.ragged_dot import grouped_dot
from dppo_jax.ops import products

_TOKENS = PartitionSpec(parallel.EXPERT_ROW_AXES)


@flax.struct.dataclass(kw_only=True)
class Routing:
  """Assignments of the routers of M sparse layers.

  Attributes:
    routes: for each stream, i32 [B, S, M, k], expert ids of each token, the
      likeliest first (or as given).
    expert_share: f32 [M, E], share of the real tokens that each expert got;
      sums to k.
    expert_probability: f32 [M, E], mean router probabilities; sums to 1.
    entropy: f32 [M], mean entropy of the router per token, nats.
  """

  routes: tuple[Array, ...]
  expert_share: Array
  expert_probability: Array
  entropy: Array


def load_balance(routing: Routing) -> Array:
  """E · sum_e f_e · P_e, f and P averaged over layers: f32 [].

  f_e is the share of tokens that expert e got, P_e its mean probability
  (Switch, arXiv:2101.03961, eq. 4, with k experts per token and all layers
  pooled, as Qwen3-MoE has it); k where the load is even.
  """
  share = jnp.mean(routing.expert_share, axis=0)
  probability = jnp.mean(routing.expert_probability, axis=0)
  return share.shape[0] * jnp.sum(share * probability)


def router_metrics(routing: Routing) -> dict[str, Array]:
  """Scalars to log, f32 [] each.

  `router/load_balance`: as `load_balance`. `router/entropy`: nats.
  `router/max_expert_share`: the busiest expert's share of a layer's
  assignments, of all layers the largest; 1 / E where the load is even.
  """
  by_layer = jnp.sum(routing.expert_share, axis=1, keepdims=True)
  shares = routing.expert_share / jnp.maximum(by_layer, 1e-30)
  return {
    'router/load_balance': load_balance(routing),
    'router/entropy': jnp.mean(routing.entropy),
    'router/max_expert_share': jnp.max(shares),
  }


def route_dtype(num_experts: int) -> np.dtype:
  """The smallest dtype that holds every expert id.

  >>> route_dtype(128), route_dtype(257)
  (dtype('uint8'), dtype('uint16'))
  """
  return np.min_scalar_type(max(0, num_experts - 1))


def is_sparse(config: layers.TransformerConfig, layer: int) -> bool:
  """Whether a layer has experts; otherwise it has the one network of d_ff."""
  return (
    config.num_experts > 0
    and layer not in config.mlp_only_layers
    and (layer + 1) % config.decoder_sparse_step == 0
  )


def block_of(config: layers.TransformerConfig) -> tuple[bool, ...]:
  """Kinds of the layers of the shortest block that the model repeats.

  One layer where all are alike. Layers are scanned block by block.
  """
  kinds = [is_sparse(config, layer) for layer in range(config.num_layers)]
  for period in range(1, len(kinds)):
    if len(kinds) % period == 0:
      block = kinds[:period]
      if block * (len(kinds) // period) == kinds:
        return tuple(block)
  return tuple(kinds)


class _Kernel(nn.Module):
  """A matrix, or one for each expert, in the compute dtype."""

  config: layers.TransformerConfig
  axes: Sequence[tuple[int, str]]

  @nn.compact
  def __call__(self) -> Array:
    init = nn.initializers.normal(self.config.init_scale)
    names = tuple(name for _, name in self.axes)
    kernel = self.param(
      'kernel',
      nn.with_logical_partitioning(init, names),
      tuple(size for size, _ in self.axes),
    )
    return jnp.asarray(kernel, self.config.dtype)


class _Experts(nn.Module):
  """SwiGLU of each expert."""

  config: layers.TransformerConfig

  @nn.compact
  def __call__(self) -> tuple[Array, Array, Array]:
    c = self.config
    expert, embed = (c.num_experts, 'expert'), (c.d_model, 'embed')
    mlp = (c.moe_intermediate_size, 'mlp')
    return (
      _Kernel(c, (expert, embed, mlp), name='gate')(),
      _Kernel(c, (expert, embed, mlp), name='up')(),
      _Kernel(c, (expert, mlp, embed), name='down')(),
    )


class RoutedFeedForward(nn.Module):
  """sum over k of gate_k · expert_k(x).

  Attributes:
    mesh: what the experts are laid over; None is one device.
  """

  config: layers.TransformerConfig
  mesh: Mesh | None = None

  @nn.compact
  def __call__(
    self,
    streams: tuple[Array, ...],
    routes: tuple[Array, ...] | None,
    token_masks: tuple[Array, ...] | None,
  ) -> tuple[tuple[Array, ...], Routing]:
    """Routes all streams at once.

    Args:
      streams: each [B', S, D].
      routes: None, or integers [B', S, k] for each stream.
      token_masks: [B', S] for each stream, how often statistics count a token,
        or whether; None counts all once.

    Returns:
      The streams' outputs, and the Routing of this layer, without axis M.
    """
    c = self.config
    axes = ((c.d_model, 'embed'), (c.num_experts, 'router'))
    router = _Kernel(c, axes, name='router')()
    kernels = _Experts(c, name='experts')()
    logits = [products.einsum_f32('bsd,de->bse', x, router) for x in streams]
    if routes is None:
      ids = [jax.lax.top_k(row, c.num_experts_per_tok)[1] for row in logits]
    else:
      ids = [route.astype(jnp.int32) for route in routes]
    gates = [
      gates_of(row, chosen, norm_topk_prob=c.norm_topk_prob)
      for row, chosen in zip(logits, ids, strict=True)
    ]
    outputs = _run_experts(self.mesh, streams, ids, gates, kernels)
    return outputs, _statistics(logits, ids, token_masks)


def gates_of(logits: Array, ids: Array, *, norm_topk_prob: bool) -> Array:
  """Weights of the chosen experts.

  softmax(logits) at `ids`, over their sum where `norm_topk_prob`.

  Args:
    logits: f32 [..., E].
    ids: i32 [..., k].
    norm_topk_prob: the gates of a token sum to 1.

  Returns:
    f32 [..., k].
  """
  chosen = jnp.take_along_axis(logits, ids, axis=-1)
  if norm_topk_prob:
    # The quotient of probabilities, which may all be too small to divide.
    return jax.nn.softmax(chosen, axis=-1)
  total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  return jnp.exp(chosen - total)


def _statistics(
  logits: Sequence[Array],
  ids: Sequence[Array],
  token_masks: tuple[Array, ...] | None,
) -> Routing:
  """Means over the real tokens of all streams."""
  size = logits[0].shape[-1]
  share = probability = jnp.zeros(size)
  entropy = count = jnp.zeros(())
  for i, (row, chosen) in enumerate(zip(logits, ids, strict=True)):
    weight = jnp.ones(row.shape[:2])
    if token_masks is not None:
      weight = token_masks[i].astype(jnp.float32)
    log_probs = jax.nn.log_softmax(row, axis=-1)
    hits = jnp.zeros(size).at[chosen].add(weight[..., None])
    share = share + hits
    total = products.einsum('bs,bse->e', weight, jnp.exp(log_probs))
    probability = probability + total
    own = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    entropy, count = entropy + jnp.sum(weight * own), count + jnp.sum(weight)
  count = jnp.maximum(count, 1.0)
  return Routing(
    routes=tuple(ids),
    expert_share=share / count,
    expert_probability=probability / count,
    entropy=entropy / count,
  )


def _run_experts(
  mesh: Mesh | None,
  streams: tuple[Array, ...],
  ids: Sequence[Array],
  gates: Sequence[Array],
  kernels: tuple[Array, Array, Array],
) -> tuple[Array, ...]:
  """Outputs of all streams, each device running its experts on its tokens."""
  if mesh is None or mesh.size == 1 or not _fits(mesh, streams):
    return _local(streams, ids, gates, kernels, 0)
  experts, width = parallel.EXPERT_AXIS, parallel.EXPERT_WIDTH_AXIS

  def shard(
    streams: tuple[Array, ...],
    ids: tuple[Array, ...],
    gates: tuple[Array, ...],
    kernels: tuple[Array, Array, Array],
  ) -> tuple[Array, ...]:
    first = jax.lax.axis_index(experts) * kernels[0].shape[0]
    outputs = _local(streams, ids, gates, kernels, first)
    return jax.lax.psum(outputs, (experts, width))

  wide = PartitionSpec(experts, None, width)
  return jax.shard_map(
    shard,
    mesh=mesh,
    in_specs=(
      _TOKENS,
      _TOKENS,
      _TOKENS,
      (wide, wide, PartitionSpec(experts, width, None)),
    ),
    out_specs=_TOKENS,
    check_vma=False,  # Of loops inside it cannot know what differs.
  )(streams, tuple(ids), tuple(gates), kernels)


def _fits(mesh: Mesh, streams: tuple[Array, ...]) -> bool:
  """Whether rows can be split; the one token of `init` cannot."""
  shards = parallel.num_batch_shards(mesh)
  return all(x.shape[0] % shards == 0 for x in streams)


def _local(
  streams: Sequence[Array],
  ids: Sequence[Array],
  gates: Sequence[Array],
  kernels: tuple[Array, Array, Array],
  first: Array | int,
) -> tuple[Array, ...]:
  """Outputs of experts first, first + 1, … at every token: as `streams`."""
  width, top_k = streams[0].shape[-1], ids[0].shape[-1]
  tokens = jnp.concatenate([x.reshape(-1, width) for x in streams])
  chosen = jnp.concatenate([i.reshape(-1) for i in ids]) - first
  weight = jnp.concatenate([g.reshape(-1, top_k) for g in gates])
  gate, up, down = kernels
  count = gate.shape[0]
  # Those of other devices come last and belong to no group.
  group = jnp.where((chosen >= 0) & (chosen < count), chosen, count)
  order = jnp.argsort(group, stable=True)
  sizes = jnp.zeros(count + 1, jnp.int32).at[group].add(1)[:count]
  rows = tokens[order // top_k]
  hidden = nn.silu(grouped_dot(rows, gate, sizes))
  hidden = hidden * grouped_dot(rows, up, sizes)
  mixed = grouped_dot(hidden, down, sizes)
  back = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
  mixed = mixed[back].reshape(-1, top_k, width)
  # f32: gates and the sum over experts are rounded once.
  mixed = jnp.sum(mixed * weight[..., None], axis=1).astype(tokens.dtype)
  sizes_of = [math.prod(x.shape[:2]) for x in streams]
  ends = [sum(sizes_of[: i + 1]) for i in range(len(sizes_of))]
  return tuple(
    mixed[end - size : end].reshape(x.shape)
    for x, size, end in zip(streams, sizes_of, ends, strict=True)
  )
