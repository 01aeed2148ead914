"""Conversations in slots: continuous batching by turns.

S conversations hold a KV cache; the others wait to start, or are over. A row
keeps its slot until its conversation ends, so that nothing is computed twice.
Decoding pauses once half of the rows in slots wait for a reply, or none goes
on; the rest go on in the middle of their turn afterwards. Which rows pause
together changes no token: that of column r of row b depends on (key, b, r) and
what stands before it only.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from dppo_jax import parallel
from dppo_jax.base import Array, Params, Prompts, Rollout
from dppo_jax.sampling import decode, weight_rounding
from dppo_jax.sampling.slot_plan import SlotPlan, plan_for
from dppo_jax.sampling.turns import Told, TurnSampler, TurnState


@flax.struct.dataclass(kw_only=True)
class SlotTurnState(TurnState):
  """Loop state of B conversations in S slots, S / D of each of D shards.

  The cache has a slot per entry of `row`. Of a row that has not started
  everything is empty.

  Attributes:
    prompts: of all rows.
    next_row: i32 [D], the shard's next row to start.
    row: i32 [D, s], row of its shard in the slot, or the last one in it.
    free: bool [D, s], whether that conversation is over, or none has begun.
    decode_steps: i32 [B], decode steps executed by the row's slot since it
      started.
  """

  prompts: Prompts
  next_row: Array
  row: Array
  free: Array
  decode_steps: Array


class SlotTurnSampler(NamedTuple):
  """`TurnSampler` with at most `config.num_slots` conversations at once.

  Attributes:
    turns: the settings.
  """

  turns: TurnSampler

  def start(
    self, params: Params, prompts: Prompts, key: Array
  ) -> tuple[Any, SlotTurnState]:
    """As `TurnSampler.start`, of the rows that have a slot.

    Args:
      params: master parameters, rounded here to `config.precision`.
      prompts: N prompts, G conversations each; more rows than slots.
      key: PRNG key, the same for all turns.
    """
    params = weight_rounding.round_params(params, self.turns.config.precision)
    weights = (params, self.turns.policy.for_decoding(params))
    return weights, self._advance(weights, key, self._empty(params, prompts))

  def resume(
    self, weights: Any, state: SlotTurnState, told: Told, key: Array
  ) -> SlotTurnState:
    """As `TurnSampler.resume`; rows that wait and do not go on are over.

    Args:
      weights: of `start`.
      state: donate it.
      told: rows that do not wait are told nothing and do not go on.
      key: that of `start`.
    """
    over = _waiting(state) & ~told.goes_on
    given = self.turns.give(state, told)
    live = jnp.where(_waiting(state), told.goes_on, state.live)
    free = state.free | _take(over, state.row)
    state = dataclasses.replace(
      state,
      filled=given.filled,
      tokens=given.tokens,
      limit=jnp.where(told.goes_on, given.limit, state.limit),
      ended=state.ended & ~told.goes_on,
      live=live,
      free=free,
    )
    return self._advance(weights, key, state)

  def to_rollout(self, state: SlotTurnState, prompts: Prompts) -> Rollout:
    """As `TurnSampler.to_rollout`."""
    rollout = self.turns.to_rollout(state, prompts)
    return dataclasses.replace(rollout, decode_steps=state.decode_steps)

  def _plan(self, state: SlotTurnState) -> SlotPlan:
    found = plan_for(
      self.turns.config,
      len(state.prompts.tokens),
      parallel.num_batch_shards(self.turns.axes.mesh),
    )
    if found is None:
      raise ValueError('sampling.num_slots: a slot for every row')
    return found

  def _empty(self, params: Params, prompts: Prompts) -> SlotTurnState:
    config, policy = self.turns.config, self.turns.policy
    mesh = self.turns.axes.mesh
    hidden, fresh = jax.eval_shape(
      lambda: policy.prefill(params, prompts, 1, 1)
    )
    num_rows = len(prompts.tokens) * config.group_size
    shards = parallel.num_batch_shards(mesh)
    prompt_routes, routes = None, None
    if config.with_routes and fresh.prompt_routes is not None:
      one = fresh.prompt_routes
      shape = (num_rows, config.max_completion_length, *one.shape[2:])
      prompt_routes = jnp.zeros(one.shape, one.dtype)
      routes = jnp.zeros(shape, one.dtype)
    empty = decode.empty_columns(
      config, num_rows, hidden.shape[-1], hidden.dtype
    )
    zero = jnp.zeros(num_rows, jnp.int32)
    by_row = (*empty, prompt_routes, routes, zero)
    tokens, sampled, stats, prompt_routes, routes, zero = jax.tree.map(
      lambda x: parallel.constrain_rows(mesh, x), by_row
    )
    slots = jnp.zeros((shards, config.num_slots // shards), jnp.int32)
    slots = parallel.constrain_rows(mesh, slots)
    return SlotTurnState(
      filled=zero,
      run=zero,
      limit=zero,
      live=zero > 0,
      ended=zero > 0,
      tokens=tokens,
      sampled=sampled,
      stats=stats,
      cache=policy.slots.empty(
        fresh.prompt, config.num_slots, config.max_completion_length
      ),
      num_steps=jnp.zeros((), jnp.int32),
      prompt_routes=prompt_routes,
      routes=routes,
      prompts=prompts,
      next_row=jnp.zeros(shards, jnp.int32),
      row=slots,
      free=slots == 0,
      decode_steps=zero,
    )

  def _advance(
    self, weights: Any, key: Array, state: SlotTurnState
  ) -> SlotTurnState:
    """State once half of the rows in slots wait, or all; slots are filled."""
    plan = self._plan(state)

    def starting(state: SlotTurnState) -> Array:
      return jnp.any(_ready(plan, state))  # Rows wait, and slots are free.

    def decoding(state: SlotTurnState) -> Array:
      held = jnp.sum(~state.free)
      waits = jnp.sum(_take(_waiting(state), state.row) & ~state.free)
      return jnp.any(state.live) & (2 * waits < held)  # Most go on.

    def fill(state: SlotTurnState) -> SlotTurnState:
      return self._fill(plan, weights, key, state)

    def step(state: SlotTurnState) -> SlotTurnState:
      return self._step(weights, key, state)

    state = jax.lax.while_loop(starting, fill, state)
    return jax.lax.while_loop(decoding, step, state)

  def _fill(
    self, plan: SlotPlan, weights: Any, key: Array, state: SlotTurnState
  ) -> SlotTurnState:
    """State after the next F rows of each ready shard took free slots."""
    policy, config = self.turns.policy, self.turns.config
    ready = _ready(plan, state)[:, None]
    free_first = jnp.argsort(~state.free, axis=1, stable=True)
    slots = jnp.where(ready, free_first[:, : plan.refill], plan.slots)
    rows = state.next_row[:, None] + jnp.arange(plan.refill)[None]
    first = state.next_row[:, None] // config.group_size
    numbers = first + jnp.arange(plan.prompts)[None]
    some = jax.tree.map(
      lambda x: _take(x, numbers).reshape(-1, *x.shape[1:]), state.prompts
    )
    hidden, fresh = policy.prefill(weights[0], some, 1, 1)
    where = jnp.where(ready, rows, plan.rows)
    nothing = jnp.zeros(rows.shape, jnp.int32)
    prompt_routes = state.prompt_routes
    if prompt_routes is not None and fresh.prompt_routes is not None:
      prompts = jnp.where(ready, numbers, plan.rows)
      prompt_routes = _put(prompt_routes, fresh.prompt_routes, prompts)
    state = dataclasses.replace(
      state,
      next_row=state.next_row + jnp.where(ready[:, 0], plan.refill, 0),
      row=_put_slots(state.row, rows, slots),
      free=_put_slots(state.free, rows < 0, slots),
      limit=_put(state.limit, self.turns.limit_after(nothing), where),
      live=_put(state.live, nothing == 0, where),
      cache=policy.slots.fill(
        state.cache, fresh.prompt, fresh.prompt_mask, slots
      ),
      prompt_routes=prompt_routes,
    )
    share = plan.refill // plan.prompts
    logits = policy.logits(weights[0], hidden)
    return self._write(
      state,
      key,
      where,
      jnp.repeat(hidden, share, axis=0),
      jnp.repeat(logits, share, axis=0),
    )

  def _step(
    self, weights: Any, key: Array, state: SlotTurnState
  ) -> SlotTurnState:
    """State after running one more token of every live row."""
    params, for_decoding = weights
    live = _take(state.live, state.row) & ~state.free
    # A slot that waits runs its first token again, which changes nothing.
    column = jnp.where(live, _take(state.run, state.row), 0)
    tokens = _take(state.tokens, state.row, column)
    hidden, cache, routes = self.turns.policy.slots.decode(
      for_decoding, state.cache, tokens.reshape(-1), column.reshape(-1)
    )
    where = jnp.where(live, state.row, _rows_a_shard(state.row, state.run))
    all_routes = state.routes
    if all_routes is not None and routes is not None:
      all_routes = _put(all_routes, routes, where, column)
    one = jnp.ones(live.shape, jnp.int32)
    state = dataclasses.replace(
      state,
      run=_put(state.run, column + 1, where),
      cache=cache,
      num_steps=state.num_steps + 1,
      decode_steps=_add(state.decode_steps, one, state.row),
      routes=all_routes,
    )
    logits = self.turns.policy.logits(params, hidden)
    return self._write(state, key, where, hidden, logits)

  def _write(
    self,
    state: SlotTurnState,
    key: Array,
    rows: Array,
    hidden: Array,
    logits: Array,
  ) -> SlotTurnState:
    """State after sampling column `filled` of rows whose tokens all ran.

    Args:
      state: has the buffers.
      key: of the conversations.
      rows: i32 [D, x], of their shard; beyond the last one nothing is written.
      hidden: [D·x, D'].
      logits: f32 [D·x, V].
    """
    count = _rows_a_shard(rows, state.run)
    first = jnp.arange(len(rows))[:, None] * count
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
      key, (first + rows).reshape(-1)
    )
    filled, run = _take(state.filled, rows), _take(state.run, rows)
    drawn, stats, ends = decode.sample_tokens(
      self.turns.axes,
      self.turns.config,
      keys,
      filled.reshape(-1),
      hidden,
      logits,
    )
    draws = (rows < count) & (run == filled)
    where = jnp.where(draws, rows, count)
    ends = ends.reshape(rows.shape)
    over = ends | (filled + 1 >= _take(state.limit, rows))
    return dataclasses.replace(
      state,
      filled=_put(state.filled, filled + 1, where),
      live=_put(state.live, ~over, where),
      ended=_put(state.ended, ends, where),
      tokens=_put(state.tokens, drawn, where, filled),
      sampled=_put(state.sampled, draws, where, filled),
      stats=jax.tree.map(
        lambda buffer, new: _put(buffer, new, where, filled), state.stats, stats
      ),
    )


def _waiting(state: SlotTurnState) -> Array:
  """Rows whose turn has ended, over or not: bool [B]."""
  return ~state.live & (state.filled > 0)


def _ready(plan: SlotPlan, state: SlotTurnState) -> Array:
  """Whether a shard has rows to start, and free slots for them: bool [D]."""
  free = jnp.sum(state.free, axis=1)
  return (state.next_row < plan.rows) & (free >= plan.refill)


def _rows_a_shard(rows: Array, by_row: Array) -> int:
  return by_row.shape[0] // rows.shape[0]


def _take(values: Array, rows: Array, *at: Array) -> Array:
  """values[row] of the rows of each shard: [B, …], i32 [D, x] -> [D, x, …]."""
  values = values.reshape(len(rows), -1, *values.shape[1:])
  return jax.vmap(lambda x, *i: x.at[i].get(mode='clip'))(values, rows, *at)


def _put(buffer: Array, values: Array, rows: Array, *at: Array) -> Array:
  """[B, …] with values [D, x, …] at rows i32 [D, x]; beyond is dropped."""
  shards = len(rows)
  view = buffer.reshape(shards, -1, *buffer.shape[1:])
  values = values.reshape(*rows.shape, *view.shape[2 + len(at) :])
  new = jax.vmap(lambda x, v, *i: x.at[i].set(v, mode='drop'))(
    view, values.astype(buffer.dtype), rows, *at
  )
  return new.reshape(buffer.shape)


def _add(buffer: Array, values: Array, rows: Array) -> Array:
  """As `_put`, added up."""
  view = buffer.reshape(len(rows), -1)
  new = jax.vmap(lambda x, v, i: x.at[i].add(v, mode='drop'))(
    view, values, rows
  )
  return new.reshape(buffer.shape)


def _put_slots(buffer: Array, values: Array, slots: Array) -> Array:
  """[D, s] with values [D, F] at slots i32 [D, F]; beyond is dropped."""
  return jax.vmap(lambda x, v, i: x.at[i].set(v, mode='drop'))(
    buffer, values, slots
  )
