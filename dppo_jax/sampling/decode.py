"""The decoding loop: one documented state, state -> state, and why it stops."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Params, Prompts, Rollout, TokenStats
from dppo_jax.models.policy import Cache, Policy
from dppo_jax.ops import log_probs as log_probs_lib
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.sampling import filters, next_token, weight_rounding


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
  """How completions are sampled.

  Attributes:
    group_size: G, completions a prompt.
    max_completion_length: R, tokens, the end token included.
    temperature: > 0, divides the logits.
    top_p: nucleus, 1.0 for none (always in training).
    greedy: take the most likely token instead of drawing.
    top_k: K, log-probs recorded a token; 0 records none.
    with_hidden: record the states that the head read.
    with_routes: record the experts that each token was given; a model without
      any records none.
    precision: what the weights are rounded to.
    pad_id: fills the columns after the end.
    eos_ids: each of them ends a completion.
    num_slots: S, rows decoded together; 0: all of them.
  """

  group_size: int
  max_completion_length: int
  temperature: float
  top_p: float
  greedy: bool
  top_k: int
  with_hidden: bool
  with_routes: bool
  precision: str
  pad_id: int
  eos_ids: tuple[int, ...]
  num_slots: int


@flax.struct.dataclass(kw_only=True)
class DecodeState:
  """All that changes while decoding; columns from `step` on are unwritten.

  Attributes:
    step: i32 [], tokens drawn so far in every row.
    tokens: i32 [B, R], pad_id where unwritten or after the end.
    mask: bool [B, R], True on drawn tokens, the end included.
    stats: of the law sampled from, [B, R].
    done: bool [B], an end token has been drawn.
    cache: keys and values of all tokens but the last drawn.
  """

  step: Array
  tokens: Array
  mask: Array
  stats: TokenStats
  done: Array
  cache: Cache


def sample(
  policy: Policy,
  axes: VocabularyAxes,
  config: SamplingConfig,
  params: Params,
  prompts: Prompts,
  key: Array,
) -> Rollout:
  """Samples G completions for each of N prompts.

  Each prompt is run once and its keys and values are shared by its group. The
  draw for token r of row b depends on (key, b, r) alone.

  Args:
    policy: the model.
    axes: where rows and columns of the vocabulary live.
    config: how to sample.
    params: master parameters, rounded here to `config.precision`.
    prompts: N prompts.
    key: PRNG key, consumed.

  Returns:
    Rollout with B = N·G rows, T = P + R columns.
  """
  params = weight_rounding.round_params(params, config.precision)
  num_rows = prompts.tokens.shape[0] * config.group_size
  hidden, cache = policy.prefill(
    params, prompts, config.group_size, config.max_completion_length
  )
  if not config.with_routes:
    cache = dataclasses.replace(
      cache, prompt_routes=None, completion_routes=None
    )
  row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))
  logits = jnp.repeat(policy.logits(params, hidden), config.group_size, axis=0)
  hidden = jnp.repeat(hidden, config.group_size, axis=0)
  state = _empty_state(config, cache, hidden)
  state = record(axes, config, row_keys, hidden, logits, state)
  weights = policy.for_decoding(params)

  def go_on(state: DecodeState) -> Array:
    room = state.step < config.max_completion_length  # The length limit.
    return room & ~jnp.all(state.done)  # Every row has ended.

  def step(state: DecodeState) -> DecodeState:
    return decode_step(policy, axes, config, params, weights, row_keys, state)

  state = jax.lax.while_loop(go_on, step, state)
  routes, cache = None, state.cache
  if cache.prompt_routes is not None and cache.completion_routes is not None:
    routes = (cache.prompt_routes, cache.completion_routes)
  return to_rollout(
    config,
    prompts,
    tokens=state.tokens,
    mask=state.mask,
    stats=state.stats,
    ended=state.done,
    routes=routes,
    decode_steps=jnp.broadcast_to(state.step - 1, (num_rows,)),
  )


def decode_step(
  policy: Policy,
  axes: VocabularyAxes,
  config: SamplingConfig,
  params: Params,
  weights: Any,
  row_keys: Array,
  state: DecodeState,
) -> DecodeState:
  """Runs the last token through the policy and draws the next one."""
  last = state.step - 1
  tokens = jax.lax.dynamic_index_in_dim(state.tokens, last, 1, keepdims=False)
  hidden, cache = policy.decode(weights, state.cache, tokens, last)
  logits = policy.logits(params, hidden)
  state = dataclasses.replace(state, cache=cache)
  return record(axes, config, row_keys, hidden, logits, state)


def record(
  axes: VocabularyAxes,
  config: SamplingConfig,
  row_keys: Array,
  hidden: Array,
  logits: Array,
  state: DecodeState,
) -> DecodeState:
  """Draws column `state.step` from logits [B, V] and writes it down."""
  step, live = state.step, ~state.done
  steps = jnp.broadcast_to(step, live.shape)
  drawn, stats, ends = draw(axes, config, row_keys, steps, hidden, logits)

  def write(buffer: Array, column: Array) -> Array:
    keep = live.reshape((-1,) + (1,) * (column.ndim - 1))
    column = jnp.where(keep, column, jnp.zeros_like(column))
    return jax.lax.dynamic_update_index_in_dim(buffer, column, step, 1)

  tokens = jnp.where(live, drawn, config.pad_id)
  return dataclasses.replace(
    state,
    step=step + 1,
    tokens=jax.lax.dynamic_update_index_in_dim(state.tokens, tokens, step, 1),
    mask=write(state.mask, live),
    stats=jax.tree.map(write, state.stats, stats),
    done=state.done | ends,
  )


def draw(
  axes: VocabularyAxes,
  config: SamplingConfig,
  row_keys: Array,
  steps: Array,
  hidden: Array,
  logits: Array,
) -> tuple[Array, TokenStats, Array]:
  """Draws a token in each row.

  Args:
    axes: where rows and columns of the vocabulary live.
    config: how to sample.
    row_keys: a key for each row.
    steps: i32 [B], numbers of the tokens.
    hidden: [B, D].
    logits: f32 [B, V].

  Returns:
    i32 [B]; what is recorded, [B]; and bool [B], which tokens are an end.
  """
  uniform = None
  if not config.greedy:
    keys = jax.vmap(jax.random.fold_in)(row_keys, steps)
    uniform = jax.vmap(jax.random.uniform)(keys)
  drawn, stats = next_token.sample_token(
    axes,
    filters.allowed(logits, config.temperature, config.top_p),
    uniform,
    temperature=config.temperature,
    top_k=config.top_k,
  )
  if config.with_hidden:
    stats = dataclasses.replace(stats, hidden=hidden)
  ends = jnp.zeros(drawn.shape, bool)
  for eos_id in config.eos_ids:
    ends |= drawn == eos_id
  return drawn, stats, ends


def _empty_state(
  config: SamplingConfig, cache: Cache, hidden: Array
) -> DecodeState:
  tokens, mask, stats = empty_columns(
    config, hidden.shape[0], hidden.shape[-1], hidden.dtype
  )
  return DecodeState(
    step=jnp.zeros((), jnp.int32),
    tokens=tokens,
    mask=mask,
    stats=stats,
    done=jnp.zeros(hidden.shape[:1], bool),
    cache=cache,
  )


def empty_columns(
  config: SamplingConfig, num_rows: int, width: int, dtype: Any
) -> tuple[Array, Array, TokenStats]:
  """Tokens, mask and stats of B rows before anything is drawn.

  Args:
    config: how to sample.
    num_rows: B.
    width: D.
    dtype: of the states.
  """
  shape = (num_rows, config.max_completion_length)
  top, states = None, None
  if config.top_k:
    top = jnp.zeros((*shape, config.top_k), jnp.float32)
  if config.with_hidden:
    states = jnp.zeros((*shape, width), dtype)
  stats = TokenStats(
    log_probs=jnp.zeros(shape, jnp.float32),
    top_ids=None if top is None else top.astype(jnp.int32),
    top_log_probs=top,
    entropy=jnp.zeros(shape, jnp.float32),
    hidden=states,
  )
  tokens = jnp.full(shape, config.pad_id, jnp.int32)
  return tokens, jnp.zeros(shape, bool), stats


def to_rollout(
  config: SamplingConfig,
  prompts: Prompts,
  *,
  tokens: Array,
  mask: Array,
  stats: TokenStats,
  ended: Array,
  routes: tuple[Array, Array] | None,
  decode_steps: Array,
) -> Rollout:
  """Puts prompts before what was sampled for them.

  Args:
    config: how it was sampled.
    prompts: N prompts.
    tokens: i32 [B, R].
    mask: bool [B, R].
    stats: [B, R].
    ended: bool [B], an end token was drawn.
    routes: of the prompts [N, P, M, k] and the completions [B, R, M, k].
    decode_steps: i32 [B].
  """

  def repeat(values: Array) -> Array:
    return jnp.repeat(values, config.group_size, axis=0)

  tokens = jnp.concatenate([repeat(prompts.tokens), tokens], axis=1)
  token_mask = jnp.concatenate([repeat(prompts.mask), mask], axis=1)
  num_columns = tokens.shape[1]

  def align(values: Array) -> Array:
    return log_probs_lib.align(values, num_columns)

  all_routes = None
  if routes is not None:
    all_routes = jnp.concatenate([repeat(routes[0]), routes[1]], axis=1)
  return Rollout(
    tokens=tokens,
    token_mask=token_mask,
    completion_mask=align(mask),
    stats=jax.tree.map(align, stats),
    group_id=repeat(jnp.arange(prompts.tokens.shape[0], dtype=jnp.int32)),
    example_id=repeat(prompts.example_id),
    truncated=~ended,
    routes=all_routes,
    decode_steps=decode_steps,
  )
