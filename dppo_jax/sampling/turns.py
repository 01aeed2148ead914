"""Decoding by turns: rows pause after a turn, are told something, and go on.

A conversation is one row of completion columns: what the policy sampled, what
it was told, what it sampled next. Tokens that were given are run by the same
decode step as those that were sampled, so that the KV cache is kept between
turns and nothing is computed twice. Given tokens are in `token_mask` and not in
`completion_mask`: they are attended to and not trained on. The token of column
r of row b depends on (key, b, r) and what stands before it only.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from dppo_jax import parallel
from dppo_jax.base import Array, Params, Prompts, Rollout, TokenStats
from dppo_jax.models.policy import Policy
from dppo_jax.models.slot_cache import SlotCache
from dppo_jax.parallel import VocabularyAxes
from dppo_jax.sampling import decode, weight_rounding
from dppo_jax.sampling.decode import SamplingConfig


@flax.struct.dataclass(kw_only=True)
class TurnState:
  """Loop state of B conversations.

  Attributes:
    filled: i32 [B], columns that hold a token, sampled or given.
    run: i32 [B], those whose token the cache holds; at most `filled`.
    limit: i32 [B], columns that the turn may fill.
    live: bool [B], whether the turn goes on.
    ended: bool [B], whether an end token ended the last turn.
    tokens: i32 [B, R], pad_id where unwritten.
    sampled: bool [B, R], True on sampled tokens.
    stats: of the sampling distribution, [B, R]; zeros at given tokens.
    cache: KV cache, a slot per row.
    num_steps: i32 [], decode steps executed.
    prompt_routes: unsigned [N, P, M, k], or None.
    routes: unsigned [B, R, M, k], or None.
  """

  filled: Array
  run: Array
  limit: Array
  live: Array
  ended: Array
  tokens: Array
  sampled: Array
  stats: TokenStats
  cache: SlotCache
  num_steps: Array
  prompt_routes: Array | None
  routes: Array | None


@flax.struct.dataclass(kw_only=True)
class Told:
  """What the rows are told between two turns.

  Attributes:
    tokens: i32 [B, E].
    count: i32 [B], how many of them; 0 where a conversation is over.
    goes_on: bool [B], whether the row samples another turn.
  """

  tokens: Array
  count: Array
  goes_on: Array


class TurnSampler(NamedTuple):
  """Decoding by turns, with what it closes over.

  Attributes:
    policy: the model.
    axes: mesh axes of the batch and of the vocabulary.
    config: sampling settings; R columns hold the whole conversation.
    max_turn_length: tokens of a turn, the end token included.
  """

  policy: Policy
  axes: VocabularyAxes
  config: SamplingConfig
  max_turn_length: int

  def start(
    self, params: Params, prompts: Prompts, key: Array
  ) -> tuple[Any, TurnState]:
    """Weights as decoding reads them, and the state after the first turn.

    Args:
      params: master parameters, rounded here to `config.precision`.
      prompts: N prompts, G conversations each.
      key: PRNG key, the same for all turns.
    """
    params = weight_rounding.round_params(params, self.config.precision)
    weights = (params, self.policy.for_decoding(params))
    return weights, self._finish_turns(
      weights, key, self._begin(params, prompts, key)
    )

  def resume(
    self, weights: Any, state: TurnState, told: Told, key: Array
  ) -> TurnState:
    """State after the next turn of the rows that go on.

    Args:
      weights: of `start`.
      state: donate it.
      told: fits into the columns that are left, with one to spare.
      key: that of `start`.
    """
    return self._finish_turns(weights, key, self.give(state, told))

  def _begin(self, params: Params, prompts: Prompts, key: Array) -> TurnState:
    """State after the first token of every row."""
    config, policy = self.config, self.policy
    group_size = config.group_size
    num_rows = prompts.tokens.shape[0] * group_size
    shards = parallel.num_batch_shards(self.axes.mesh)
    hidden, fresh = policy.prefill(params, prompts, 1, 1)
    cache = policy.slots.fill(
      policy.slots.empty(fresh.prompt, num_rows, config.max_completion_length),
      fresh.prompt,
      fresh.prompt_mask,
      jnp.broadcast_to(
        jnp.arange(num_rows // shards), (shards, num_rows // shards)
      ),
    )
    routes = None
    if config.with_routes and fresh.prompt_routes is not None:
      one = fresh.prompt_routes
      shape = (num_rows, config.max_completion_length, *one.shape[2:])
      routes = jnp.zeros(shape, one.dtype)
    empty = decode.empty_columns(
      config, num_rows, hidden.shape[-1], hidden.dtype
    )
    tokens, sampled, stats, routes = jax.tree.map(
      lambda x: parallel.constrain_rows(self.axes.mesh, x), (*empty, routes)
    )
    zero = jnp.zeros(num_rows, jnp.int32)
    state = TurnState(
      filled=zero,
      run=zero,
      limit=self.limit_after(zero),
      live=jnp.ones(num_rows, bool),
      ended=jnp.zeros(num_rows, bool),
      tokens=tokens,
      sampled=sampled,
      stats=stats,
      cache=cache,
      num_steps=jnp.zeros((), jnp.int32),
      prompt_routes=None if routes is None else fresh.prompt_routes,
      routes=routes,
    )
    logits = policy.logits(params, hidden)
    return self._write(
      state,
      key,
      jnp.repeat(hidden, group_size, axis=0),
      jnp.repeat(logits, group_size, axis=0),
    )

  def limit_after(self, filled: Array) -> Array:
    """Columns that a turn may fill that begins after `filled`."""
    return jnp.minimum(
      filled + self.max_turn_length, self.config.max_completion_length
    )

  def give(self, state: TurnState, told: Told) -> TurnState:
    """State with what rows are told behind their turns."""
    columns = jnp.arange(state.tokens.shape[1])[None] - state.filled[:, None]
    given = jnp.take_along_axis(
      told.tokens, jnp.clip(columns, 0, told.tokens.shape[1] - 1), axis=1
    )
    is_given = (columns >= 0) & (columns < told.count[:, None])
    filled = state.filled + told.count
    return dataclasses.replace(
      state,
      filled=filled,
      limit=self.limit_after(filled),
      live=told.goes_on,
      ended=state.ended & ~told.goes_on,
      tokens=jnp.where(is_given, given, state.tokens),
    )

  def _finish_turns(
    self, weights: Any, key: Array, state: TurnState
  ) -> TurnState:
    def unfinished(state: TurnState) -> Array:
      return jnp.any(state.live)  # Some turn goes on.

    def step(state: TurnState) -> TurnState:
      return self._step(weights, key, state)

    return jax.lax.while_loop(unfinished, step, state)

  def _step(self, weights: Any, key: Array, state: TurnState) -> TurnState:
    """State after running one more token of every live row."""
    params, for_decoding = weights
    # A row that waits runs its first token again, which changes nothing.
    column = jnp.where(state.live, state.run, 0)
    tokens = jnp.take_along_axis(state.tokens, column[:, None], axis=1)[:, 0]
    hidden, cache, routes = self.policy.slots.decode(
      for_decoding, state.cache, tokens, column
    )
    all_routes = state.routes
    if all_routes is not None and routes is not None:
      all_routes = _put(
        all_routes, routes, jnp.where(state.live, column, all_routes.shape[1])
      )
    state = dataclasses.replace(
      state,
      run=state.run + state.live,
      cache=cache,
      num_steps=state.num_steps + 1,
      routes=all_routes,
    )
    return self._write(state, key, hidden, self.policy.logits(params, hidden))

  def _write(
    self, state: TurnState, key: Array, hidden: Array, logits: Array
  ) -> TurnState:
    """State after sampling column `filled` of rows whose tokens all ran."""
    num_rows, num_columns = state.tokens.shape
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))
    drawn, stats, ends = decode.sample_tokens(
      self.axes, self.config, keys, state.filled, hidden, logits
    )
    draws = state.live & (state.run == state.filled)
    column = jnp.where(draws, state.filled, num_columns)

    def write(buffer: Array, values: Array) -> Array:
      return _put(buffer, values, column)

    filled = state.filled + draws
    over = draws & (ends | (filled >= state.limit))
    return dataclasses.replace(
      state,
      filled=filled,
      live=state.live & ~over,
      ended=jnp.where(draws, ends, state.ended),
      tokens=write(state.tokens, drawn),
      sampled=write(state.sampled, draws),
      stats=jax.tree.map(write, state.stats, stats),
    )

  def to_rollout(self, state: TurnState, prompts: Prompts) -> Rollout:
    """Rollout of the conversations; `truncated` where no end token ended it."""
    routes = None
    if state.prompt_routes is not None and state.routes is not None:
      routes = (state.prompt_routes, state.routes)
    num_rows, num_columns = state.tokens.shape
    return decode.to_rollout(
      self.config,
      prompts,
      tokens=state.tokens,
      mask=state.sampled,
      filled=jnp.arange(num_columns)[None] < state.filled[:, None],
      stats=state.stats,
      ended=state.ended,
      routes=routes,
      decode_steps=jnp.broadcast_to(state.num_steps, (num_rows,)),
    )


def _put(buffer: Array, values: Array, column: Array) -> Array:
  """buffer[b, column[b]] = values[b]; out of range is dropped."""
  return jax.vmap(lambda x, new, i: x.at[i].set(new, mode='drop'))(
    buffer, values, column
  )
