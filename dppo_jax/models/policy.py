"""The policy as a tuple of pure functions: all that the other layers see."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dppo_jax.base import Array, Params, PolicyApply, Prompts
from dppo_jax.models import cpu_bfloat16, cpu_decode, cpu_kernels, moe
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.moe import Routing
from dppo_jax.models.slot_cache import SlotCache, Slots, make_slots
from dppo_jax.models.transformer import Transformer
from dppo_jax.ops import products


@flax.struct.dataclass(kw_only=True)
class AdaptedParams:
  """Parameters in two parts, which a policy takes like those in one.

  Attributes:
    base: nested dict, frozen; of any float dtype.
    adapter: `lora_a` and `lora_b` where a projection has an adapter.
    scale: of their product.
  """

  base: Params
  adapter: Params
  scale: float = flax.struct.field(pytree_node=False)


def with_base(
  base: Params | None, params: Params, scale: float | None
) -> Params:
  """Parameters that a policy takes: those that train, over a frozen base.

  Args:
    base: frozen weights below an adapter.
    params: parameters that train.
    scale: of what the adapter adds; None where everything trains.

  Raises:
    ValueError: there is an adapter, and no base was loaded.
  """
  if scale is None:
    return params
  if base is None:
    raise ValueError(
      'lora.rank: the frozen weights are not loaded; pass the parts through'
      ' base_weights.with_base first.'
    )
  return AdaptedParams(base=base, adapter=params, scale=scale)


@flax.struct.dataclass(kw_only=True)
class Cache:
  """Keys and values of N prompts and of the B = N·G completions so far.

  Attributes:
    prompt: (keys, values), each [L, N, kv_heads, P, head_dim]; L such pairs
      without the axis of layers where decoding is unrolled.
    prompt_mask: bool [N, P].
    completion: likewise, each [L, B, kv_heads, R, head_dim].
    prompt_routes: unsigned [N, P, M, k], experts that the M sparse layers gave
      each token, in the smallest dtype that holds them; None in a dense model,
      or where nobody asks for them.
    completion_routes: unsigned [B, R, M, k], likewise; 0 in columns not run
      yet, and in that of the last token drawn, which nothing follows.
  """

  prompt: Any
  prompt_mask: Array
  completion: Any
  prompt_routes: Array | None = None
  completion_routes: Array | None = None


class Policy(NamedTuple):
  """Pure functions of the parameters.

  Attributes:
    init: key -> parameters, each leaf boxed with its logical axis names
      (`flax.linen.unbox` gives the plain nested dict the others take).
    apply: (params, tokens i32 [B, T], mask bool [B, T]) -> hidden [B, T, D].
    prefill: (params, prompts, group_size, R) -> hidden [N, D] after the last
      prompt token, and the cache.
    for_decoding: params -> the weights as `decode` reads them, made once per
      rollout.
    decode: (those, cache, tokens i32 [B], step i32 []) -> hidden [B, D] after
      the token, which is the completion's token number `step`, and the cache.
    head: params -> the head [V, D], as it is stored.
    logits: (params, hidden [..., D]) -> f32 [..., V] = hidden @ head.T.
    apply_routed: (params, tokens, mask, routes) -> (hidden, Routing); as
      `apply`, replaying `routes`, integers [B, T, M, k], or None to let the
      routers choose. The Routing is of real tokens; None for a dense model.
    apply_grouped_routed: (params, prompts, prompt_mask, completions,
      completion_mask, routes) -> (hidden, Routing): hidden [B, R, D] that
      predict the completions i32 [B, R]; each of the N prompts [N, P] is run
      once for its B / N completions. Routes of (prompts [N, P, M, k],
      completions [B, R, M, k]) or None; a sampler finds both in its cache. The
      Routing counts a prompt as often as it is shared, as if it were run for
      every row.
    slots: decoding where rows begin and end one by one.
  """

  init: Callable[[Array], Any]
  apply: PolicyApply
  prefill: Callable[[Params, Prompts, int, int], tuple[Array, Cache]]
  for_decoding: Callable[[Params], Any]
  decode: Callable[[Any, Cache, Array, Array], tuple[Array, Cache]]
  head: Callable[[Params], Array]
  logits: Callable[[Params, Array], Array]
  apply_routed: Callable[
    [Params, Array, Array, Array | None], tuple[Array, Routing | None]
  ]
  apply_grouped_routed: Callable[
    [Params, Array, Array, Array, Array | None, tuple[Array, Array] | None],
    tuple[Array, Routing | None],
  ]
  slots: Slots


def positions_of(mask: Array) -> Array:
  """Positions that count real tokens from 0; padding gets 0: i32 [B, T].

  >>> positions_of(jnp.array([[False, True, True]])).tolist()
  [[0, 0, 1]]
  """
  return jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)


def segments_of(mask: Array) -> Array:
  """Segment ids of rows that hold one sequence each: i32, as `mask`."""
  return mask.astype(jnp.int32)


def make_policy(config: TransformerConfig, mesh: Mesh | None = None) -> Policy:
  """Functions of a transformer.

  Args:
    config: its shape.
    mesh: what rows and experts are laid over, and whose devices it is for; None
      is one device of those here.
  """
  platform = cpu_bfloat16.platform_of(mesh)
  model = _Model(config, platform, Transformer(config, mesh, platform))
  return Policy(
    init=jax.jit(model.init),  # Traced once for all that calls it.
    apply=model.apply,
    prefill=model.prefill,
    for_decoding=model.for_decoding,
    decode=model.decode,
    head=model.head,
    logits=model.logits,
    apply_routed=model.apply_routed,
    apply_grouped_routed=model.apply_grouped_routed,
    slots=make_slots(mesh, model.run_token),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class _Model:
  """A transformer for one platform; its methods are a policy's functions."""

  config: TransformerConfig
  platform: str
  module: Transformer

  def run(self, params: Params, *args: Any, **options: Any) -> Any:
    return self.module.apply(
      _collections(params, self.platform), *args, **options
    )

  def init(self, key: Array) -> Any:
    token, one = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), jnp.int32)
    config = dataclasses.replace(self.config, scan_unroll=1)  # It runs once.

    def everything(module: Transformer) -> Array:
      streams, *_ = module((token,), (token,), (one,))
      return products.matmul(streams[0], module.head().T)

    return nn.init(everything, self.module.clone(config=config))(key)['params']

  def apply(self, params: Params, tokens: Array, mask: Array, /) -> Array:
    return self.apply_routed(params, tokens, mask, None)[0]

  def apply_routed(
    self, params: Params, tokens: Array, mask: Array, routes: Array | None
  ) -> tuple[Array, Routing | None]:
    chex.assert_rank([tokens, mask], 2)
    chex.assert_equal_shape([tokens, mask])
    streams, _, routing = self.run(
      params,
      (tokens,),
      (positions_of(mask),),
      (segments_of(mask),),
      token_masks=(mask,),
      routes=None if routes is None else (routes,),
    )
    return streams[0], routing

  def apply_grouped_routed(
    self,
    params: Params,
    prompts: Array,
    prompt_mask: Array,
    completions: Array,
    completion_mask: Array | None,
    routes: tuple[Array, Array] | None,
  ) -> tuple[Array, Routing | None]:
    group_size = completions.shape[0] // prompts.shape[0]
    positions = _completion_positions(prompt_mask, group_size, completions)
    if completion_mask is None:
      completion_mask = jnp.ones(completions.shape, bool)
    segments = segments_of(prompt_mask), segments_of(completion_mask)
    streams, _, routing = self.run(
      params,
      (prompts, completions),
      (positions_of(prompt_mask), positions),
      segments,
      segments,  # A completion's 1 is that of its prompt, too.
      token_masks=(
        prompt_mask.astype(jnp.float32) * group_size,
        completion_mask,
      ),
      routes=routes,
    )
    last = jnp.repeat(streams[0][:, -1:], group_size, axis=0)
    return jnp.concatenate([last, streams[1][:, :-1]], axis=1), routing

  def prefill(
    self, params: Params, prompts: Prompts, group_size: int, num_columns: int
  ) -> tuple[Array, Cache]:
    streams, key_values, routing = self.run(
      params,
      (prompts.tokens,),
      (positions_of(prompts.mask),),
      (segments_of(prompts.mask),),
    )
    num_rows = prompts.tokens.shape[0] * group_size
    shape = (
      num_rows,
      self.config.num_kv_heads,
      num_columns,
      self.config.head_dim,
    )
    if self.unrolls(params):
      empty = jnp.zeros(shape, self.config.dtype)
      cache = Cache(
        prompt=cpu_decode.split_layers(key_values),
        prompt_mask=prompts.mask,
        completion=((empty, empty),) * self.config.num_layers,
      )
    else:
      empty = jnp.zeros((self.config.num_layers, *shape), self.config.dtype)
      cache = Cache(
        prompt=key_values, prompt_mask=prompts.mask, completion=(empty, empty)
      )
    if routing is not None:
      ran = routing.routes[0].astype(moe.route_dtype(self.config.num_experts))
      cache = dataclasses.replace(
        cache,
        prompt_routes=ran,
        completion_routes=jnp.zeros(
          (num_rows, num_columns, *ran.shape[2:]), ran.dtype
        ),
      )
    return streams[0][:, -1], cache

  def unrolls(self, params: Params) -> bool:
    # A frozen base of 16 bits is widened layer by layer, which takes a loop.
    return self.platform == 'cpu' and not isinstance(params, AdaptedParams)

  def for_decoding(self, params: Params) -> Any:
    return (
      cpu_decode.unroll(self.config, params) if self.unrolls(params) else params
    )

  def run_token(
    self,
    weights: Any,
    cache: Cache | SlotCache,
    tokens: Array,
    positions: Array,
    num_written: Array,
    write: Callable[[Array, Array], Array],
  ) -> tuple[Array, Any, Array | None]:
    """One token per row: hidden, keys and values, and experts if any.

    Args:
      weights: as of `decode`.
      cache: likewise.
      tokens: likewise.
      positions: i32 [B, 1].
      num_written: i32 [1 or B], columns of the completions in the cache.
      write: (keys or values cached, the tokens') -> the former with the latter.

    Returns:
      Hidden [B, D]; the cache's `completion` after the tokens; their experts.
    """
    num_columns = jax.tree.leaves(cache.completion)[0].shape[-2]
    columns, num_written = jnp.arange(num_columns)[None], num_written[:, None]
    cached = cache.prompt, cache.completion
    prompt_segments = segments_of(cache.prompt_mask)
    if isinstance(weights, cpu_decode.UnrolledParams):
      hidden, completion, routes = cpu_decode.decode(
        self.module,
        weights,
        tokens[:, None],
        positions,
        cached,
        (prompt_segments, segments_of(columns <= num_written)),
        write,
      )
    else:
      (hidden,), own, routing = self.run(
        weights,
        (tokens[:, None],),
        (positions,),
        (jnp.ones((1, 1), jnp.int32),),
        cached=cached,
        cached_segments=(prompt_segments, segments_of(columns < num_written)),
      )
      completion = jax.tree.map(write, cache.completion, own)
      routes = None if routing is None else routing.routes[0]
    if routes is not None:
      routes = routes[:, 0].astype(moe.route_dtype(self.config.num_experts))
    return hidden[:, 0], completion, routes

  def decode(
    self, weights: Any, cache: Cache, tokens: Array, step: Array
  ) -> tuple[Array, Cache]:
    group_size = tokens.shape[0] // cache.prompt_mask.shape[0]
    lengths = jnp.sum(cache.prompt_mask, axis=1, dtype=jnp.int32)
    positions = jnp.repeat(lengths, group_size)[:, None] + step

    def write(old: Array, new: Array) -> Array:
      return jax.lax.dynamic_update_slice_in_dim(
        old, new.astype(old.dtype), step, axis=-2
      )

    hidden, completion, routes = self.run_token(
      weights, cache, tokens, positions, jnp.asarray(step)[None], write
    )
    cache = dataclasses.replace(cache, completion=completion)
    if routes is not None and cache.completion_routes is not None:
      cache = dataclasses.replace(
        cache,
        completion_routes=jax.lax.dynamic_update_slice_in_dim(
          cache.completion_routes,
          routes[:, None],
          step,
          axis=1,
        ),
      )
    return hidden, cache

  def head(self, params: Params) -> Array:
    weights: Any = self.module.apply(
      _collections(params, self.platform), method='head'
    )
    return weights

  def logits(self, params: Params, hidden: Array) -> Array:
    weights = self.head(params).astype(hidden.dtype)
    if (
      self.platform == 'cpu'
      and hidden.ndim == 2
      and len(hidden) <= cpu_kernels.FEW
    ):
      return cpu_kernels.product(weights, hidden)
    return products.einsum_f32('...d,vd->...v', hidden, weights)


def _collections(params: Params, platform: str) -> dict[str, Any]:
  """Parameters as Flax takes them."""
  if not isinstance(params, AdaptedParams):
    return {'params': cpu_bfloat16.pack(params, platform)}

  def scaled(path: Any, leaf: Array) -> Array:
    # The smaller factor, instead of activations.
    return leaf * params.scale if path[-1].key == 'lora_b' else leaf

  adapter = jax.tree_util.tree_map_with_path(scaled, params.adapter)
  return {'params': cpu_bfloat16.pack(params.base, platform), 'lora': adapter}


def _completion_positions(
  prompt_mask: Array, group_size: int, completions: Array
) -> Array:
  """Positions that go on where each row's prompt ended: i32 [B, R]."""
  lengths = jnp.sum(prompt_mask, axis=1, dtype=jnp.int32)
  columns = jnp.arange(completions.shape[1], dtype=jnp.int32)
  return jnp.repeat(lengths, group_size)[:, None] + columns[None]
