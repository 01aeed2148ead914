"""Decoding loop: state -> state, until every row has ended."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Array, Params, Prompts, Rollout, TokenStats
from dppo_jax.models.policy import Cache, Policy
from dppo_jax.ops import log_probs as log_probs_lib
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.sampling import filters, next_token, weight_rounding
from dppo_jax.sampling.support import OUTSIDE, Support


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
  """Sampling settings.

  Attributes:
    group_size: G, completions per prompt.
    max_completion_length: R, tokens, the end token included.
    temperature: > 0, divides the logits.
    top_p: nucleus, of which nothing is recorded; 1.0 for none (always in
      training).
    support: filter whose tokens are recorded for the trainer; None for none.
    greedy: whether to take the most likely token; maybe traced, a bool [].
    top_k: K, log-probs recorded per token; 0 records none.
    with_hidden: whether to record the hidden states that the LM head reads.
    with_routes: whether to record the experts of each token; dense models
      record none.
    precision: of the sampler's weights, a key of `PRECISIONS`.
    pad_id: fills the columns after the end token.
    eos_ids: end tokens.
    stop_ids: other tokens that end a row, for they complete a stop string;
      there may be thousands.
    num_slots: S, rows decoded at once; 0 for all.
    cache_columns: of the first KV cache, which then grows; 0 for all R.
  """

  group_size: int
  max_completion_length: int
  temperature: float
  top_p: float
  support: Support | None
  greedy: bool | Array
  top_k: int
  with_hidden: bool
  with_routes: bool
  precision: str
  pad_id: int
  eos_ids: tuple[int, ...]
  stop_ids: tuple[int, ...]
  num_slots: int
  cache_columns: int


@flax.struct.dataclass(kw_only=True)
class DecodeState:
  """Loop state; columns from `step` on are unwritten.

  Attributes:
    step: i32 [], number of tokens sampled per row.
    tokens: i32 [B, R], pad_id where unwritten or after the end token.
    mask: bool [B, R], True on sampled tokens, the end token included.
    stats: of the sampling distribution, [B, R].
    done: bool [B], an end token or a stop token has been sampled.
    cache: KV cache of all tokens except the last one sampled.
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
  """Rollout of G completions for each of N prompts.

  Each prompt is prefilled once and its KV cache is shared by its group. The
  random number for token r of row b depends on (key, b, r) only.

  Args:
    policy: the model.
    axes: mesh axes of the batch and of the vocabulary.
    config: sampling settings.
    params: master parameters, rounded here to `config.precision`.
    prompts: N prompts.
    key: PRNG key, consumed.

  Returns:
    Rollout with B = N·G rows, T = P + R columns.
  """
  limit = config.max_completion_length
  state = start(policy, axes, config, params, prompts, key, limit)
  state = run(policy, axes, config, params, key, state, limit)
  return finish(config, prompts, state)


def start(
  policy: Policy,
  axes: VocabularyAxes,
  config: SamplingConfig,
  params: Params,
  prompts: Prompts,
  key: Array,
  num_columns: int,
) -> DecodeState:
  """State after the first token of every row.

  Args: those of `sample`, and
    num_columns: of completions in the KV cache, at most R.
  """
  params = weight_rounding.round_params(params, config.precision)
  hidden, cache = policy.prefill(
    params, prompts, config.group_size, num_columns
  )
  cache = dataclasses.replace(cache, **_kept_routes(config, cache))
  logits = jnp.repeat(policy.logits(params, hidden), config.group_size, axis=0)
  hidden = jnp.repeat(hidden, config.group_size, axis=0)
  state = _empty_state(config, cache, hidden)
  row_keys = _row_keys(key, state)
  return write_token(axes, config, row_keys, hidden, logits, state)


def run(
  policy: Policy,
  axes: VocabularyAxes,
  config: SamplingConfig,
  params: Params,
  key: Array,
  state: DecodeState,
  num_columns: int,
) -> DecodeState:
  """State after the last token, or after as many as the KV cache has room for.

  Args: those of `sample`, and
    state: of `start`, or of `run` with a cache that has grown.
    num_columns: of completions in its cache.
  """
  params = weight_rounding.round_params(params, config.precision)
  weights, row_keys = policy.for_decoding(params), _row_keys(key, state)

  def goes_on(state: DecodeState) -> Array:
    # A step writes the token before the one that it samples.
    return unfinished(config, state) & (state.step <= num_columns)

  def step(state: DecodeState) -> DecodeState:
    return decode_step(policy, axes, config, params, weights, row_keys, state)

  return jax.lax.while_loop(goes_on, step, state)


def unfinished(config: SamplingConfig, state: DecodeState) -> Array:
  """Whether tokens are missing: bool []."""
  room = state.step < config.max_completion_length  # The length limit.
  return room & ~jnp.all(state.done)  # Some row has not ended.


def finish(
  config: SamplingConfig, prompts: Prompts, state: DecodeState
) -> Rollout:
  """The rollout of a state that is not unfinished."""
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
    decode_steps=jnp.broadcast_to(state.step - 1, state.done.shape),
  )


def _row_keys(key: Array, state: DecodeState) -> Array:
  rows = jnp.arange(len(state.done))
  return jax.vmap(jax.random.fold_in, (None, 0))(key, rows)


def _kept_routes(config: SamplingConfig, cache: Cache) -> dict[str, Any]:
  """The routes of a cache, those of completions at the limit's width."""
  routes = cache.completion_routes
  if not config.with_routes or routes is None:
    return dict(prompt_routes=None, completion_routes=None)
  more = config.max_completion_length - routes.shape[1]
  widths = ((0, 0), (0, more), (0, 0), (0, 0))
  return dict(completion_routes=jnp.pad(routes, widths))


def decode_step(
  policy: Policy,
  axes: VocabularyAxes,
  config: SamplingConfig,
  params: Params,
  weights: Any,
  row_keys: Array,
  state: DecodeState,
) -> DecodeState:
  """State after running the last token and sampling the next one."""
  last = state.step - 1
  tokens = jax.lax.dynamic_index_in_dim(state.tokens, last, 1, keepdims=False)
  hidden, cache = policy.decode(weights, state.cache, tokens, last)
  logits = policy.logits(params, hidden)
  state = dataclasses.replace(state, cache=cache)
  return write_token(axes, config, row_keys, hidden, logits, state)


def write_token(
  axes: VocabularyAxes,
  config: SamplingConfig,
  row_keys: Array,
  hidden: Array,
  logits: Array,
  state: DecodeState,
) -> DecodeState:
  """State after sampling column `state.step` from logits [B, V]."""
  step, live = state.step, ~state.done
  steps = jnp.broadcast_to(step, live.shape)
  settings = axes, config, row_keys
  drawn, stats, ends = sample_tokens(*settings, steps, hidden, logits)

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


def sample_tokens(
  axes: VocabularyAxes,
  config: SamplingConfig,
  row_keys: Array,
  steps: Array,
  hidden: Array,
  logits: Array,
) -> tuple[Array, TokenStats, Array]:
  """One token per row.

  Args:
    axes: mesh axes of the batch and of the vocabulary.
    config: sampling settings.
    row_keys: PRNG keys, one per row.
    steps: i32 [B], positions of the tokens in their completions.
    hidden: [B, D].
    logits: f32 [B, V].

  Returns:
    Tokens i32 [B]; their stats [B]; and bool [B], which end their row.
  """
  logits = filters.allowed(logits, config.temperature, config.top_p)
  uniform = None
  if config.greedy is not True:
    keys = jax.vmap(jax.random.fold_in)(row_keys, steps)
    uniform = jax.vmap(jax.random.uniform)(keys)
    if config.greedy is not False:
      logits, uniform = filters.or_likeliest(config.greedy, logits, uniform)
  drawn, stats = next_token.sample_token(
    axes,
    logits,
    uniform,
    temperature=config.temperature,
    top_k=config.top_k,
    support=config.support,
  )
  if config.with_hidden:
    stats = dataclasses.replace(stats, hidden=hidden)
  ends = jnp.zeros(drawn.shape, bool)
  for eos_id in config.eos_ids:
    ends |= drawn == eos_id
  if config.stop_ids:
    stops = np.zeros(max(config.stop_ids) + 1, bool)
    stops[list(config.stop_ids)] = True
    ends |= jnp.asarray(stops).at[drawn].get(mode='fill', fill_value=False)
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
  """Tokens, mask and stats of B rows before sampling.

  Args:
    config: sampling settings.
    num_rows: B.
    width: D.
    dtype: of the hidden states.
  """
  shape = (num_rows, config.max_completion_length)
  top, states, support = None, None, None
  if config.top_k:
    top = jnp.zeros((*shape, config.top_k), jnp.float32)
  if config.with_hidden:
    states = jnp.zeros((*shape, width), dtype)
  if config.support is not None:
    support = jnp.full((*shape, config.support.top_k), OUTSIDE, jnp.int32)
  stats = TokenStats(
    log_probs=jnp.zeros(shape, jnp.float32),
    top_ids=None if top is None else top.astype(jnp.int32),
    top_log_probs=top,
    entropy=jnp.zeros(shape, jnp.float32),
    hidden=states,
    support=support,
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
  filled: Array | None = None,
) -> Rollout:
  """Rollout of prompts and their completions.

  Args:
    config: sampling settings.
    prompts: N prompts.
    tokens: i32 [B, R].
    mask: bool [B, R], sampled tokens.
    stats: [B, R].
    ended: bool [B], an end token was sampled.
    routes: of the prompts [N, P, M, k] and the completions [B, R, M, k].
    decode_steps: i32 [B].
    filled: bool [B, R], sampled tokens and those that were given; None is
      `mask`.
  """

  def repeat(values: Array) -> Array:
    return jnp.repeat(values, config.group_size, axis=0)

  tokens = jnp.concatenate([repeat(prompts.tokens), tokens], axis=1)
  real = mask if filled is None else filled
  token_mask = jnp.concatenate([repeat(prompts.mask), real], axis=1)
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
