"""Continuous batching: a slot whose sequence has ended takes the next one.

S slots are decoded together, each at its own position. Once enough slots are
free, the next prompts are prefilled into them, so the KV cache holds S
sequences, not all B. Each batch shard has its own slots and its own sequences,
in order. A completion is deterministic given its prompt, its row index and the
key, independent of batching.
"""

import dataclasses
from typing import Any

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
from dppo_jax.sampling.slot_plan import SlotPlan, plan_for

# Names of the two loops in a compiled program.
REFILL_LOOP, DECODE_LOOP = 'refill_slots', 'decode_slots'


@flax.struct.dataclass(kw_only=True)
class SlotState:
  """Loop state; results of rows that have not started are empty.

  Attributes:
    next_row: i32 [D], the shard's next row to start.
    row: i32 [D, s], row in the slot, or the last one in it.
    live: bool [D, s], whether that row has not ended.
    step: i32 [D, s], number of its sampled tokens.
    token: i32 [D, s], the last sampled token.
    cache: KV cache of the slots.
    tokens: i32 [D, b, R].
    mask: bool [D, b, R].
    stats: of the sampling distribution, [D, b, R].
    ended: bool [D, b], an end token has been sampled.
    decode_steps: i32 [D, b], decode steps executed by the row's slot since it
      started.
    prompt_routes: unsigned [D, n, P, M, k], or None.
    routes: unsigned [D, b, R, M, k], or None.
  """

  next_row: Array
  row: Array
  live: Array
  step: Array
  token: Array
  cache: SlotCache
  tokens: Array
  mask: Array
  stats: TokenStats
  ended: Array
  decode_steps: Array
  prompt_routes: Array | None
  routes: Array | None


def sample(
  policy: Policy,
  axes: VocabularyAxes,
  config: SamplingConfig,
  params: Params,
  prompts: Prompts,
  key: Array,
) -> Rollout:
  """Rollout of `decode.sample`, with at most `config.num_slots` rows at once.

  The tokens equal those of `decode.sample`, up to rounding of sums.
  """
  plan = plan_for(
    config, prompts.tokens.shape[0], parallel.num_batch_shards(axes.mesh)
  )
  if plan is None:
    return decode.sample(policy, axes, config, params, prompts, key)
  sampler = SlotSampler.of(policy, axes, config, plan, params, prompts, key)
  limit = config.max_completion_length
  state = sampler.run(sampler.start(limit), limit, resumed=False)
  return finish(config, prompts, state)


def unfinished(plan: SlotPlan, state: SlotState) -> Array:
  """Whether tokens are missing: bool []."""
  waiting = jnp.any(state.next_row < plan.rows)  # Some rows have not started.
  return waiting | jnp.any(state.live)


def finish(
  config: SamplingConfig, prompts: Prompts, state: SlotState
) -> Rollout:
  """The rollout of a state that is not unfinished."""

  def merge_shards(values: Array) -> Array:
    return values.reshape(-1, *values.shape[2:])

  routes = None
  if state.prompt_routes is not None and state.routes is not None:
    routes = (merge_shards(state.prompt_routes), merge_shards(state.routes))
  return decode.to_rollout(
    config,
    prompts,
    tokens=merge_shards(state.tokens),
    mask=merge_shards(state.mask),
    stats=jax.tree.map(merge_shards, state.stats),
    ended=merge_shards(state.ended),
    routes=routes,
    decode_steps=merge_shards(state.decode_steps),
  )


def _ready(plan: SlotPlan, state: SlotState) -> Array:
  """Whether a shard has rows to start, and a refill of free slots: bool [D]."""
  free = jnp.sum(~state.live, axis=1)
  return (state.next_row < plan.rows) & (free >= plan.refill)


def _refill_is_due(plan: SlotPlan, state: SlotState) -> Array:
  """Whether at least half of the shards with rows to start are ready: bool [].

  A refill stops the decoding of all shards, so one ready shard is not enough.
  """
  number = jnp.sum(state.next_row < plan.rows)
  ready = jnp.sum(_ready(plan, state))
  return (number > 0) & (2 * ready >= number)


@dataclasses.dataclass(frozen=True)
class SlotSampler:
  """State -> state, and what stays the same; arguments as in `sample`."""

  policy: Policy
  axes: VocabularyAxes
  config: SamplingConfig
  plan: SlotPlan
  params: Params
  weights: Any
  prompts: Prompts
  key: Array

  @classmethod
  def of(
    cls,
    policy: Policy,
    axes: VocabularyAxes,
    config: SamplingConfig,
    plan: SlotPlan,
    params: Params,
    prompts: Prompts,
    key: Array,
  ) -> 'SlotSampler':
    """With the weights that decoding reads."""
    params = weight_rounding.round_params(params, config.precision)
    weights = policy.for_decoding(params)
    return cls(policy, axes, config, plan, params, weights, prompts, key)

  def run(
    self, state: SlotState, num_columns: int, *, resumed: bool
  ) -> SlotState:
    """State after all rows, or once the KV cache has no room for one.

    Args:
      state: of `start`, or of `run` with a cache that has grown.
      num_columns: of completions in its cache.
      resumed: the latter; rows in slots go on before others start.
    """
    plan = self.plan

    def fits(state: SlotState) -> Array | bool:
      if num_columns == self.config.max_completion_length:
        return True
      # A step writes the token before the one that it samples.
      return jnp.all(~state.live | (state.step <= num_columns))

    def waiting(state: SlotState) -> Array:
      some = jnp.any(state.next_row < plan.rows)  # Some rows have not started.
      return some & fits(state)

    def decoding(state: SlotState) -> Array:
      some = jnp.any(state.live)  # Else no slot is left to decode.
      # Else enough slots are free.
      return some & ~_refill_is_due(plan, state) & fits(state)

    def decode_rows(state: SlotState) -> SlotState:
      with jax.named_scope(DECODE_LOOP):
        return jax.lax.while_loop(decoding, self.decode, state)

    def refill_and_decode(state: SlotState) -> SlotState:
      return decode_rows(self.refill(state))

    if resumed:
      state = decode_rows(state)
    with jax.named_scope(REFILL_LOOP):
      return jax.lax.while_loop(waiting, refill_and_decode, state)

  def start(self, num_columns: int) -> SlotState:
    """Initial state: all slots free, no row started.

    Args:
      num_columns: of completions in the KV cache, at most R.
    """
    plan, config = self.plan, self.config
    hidden, fresh = jax.eval_shape(
      lambda: self.policy.prefill(self.params, self.prompts, 1, 1)
    )
    num_rows, num_slots = plan.shards * plan.rows, plan.shards * plan.slots

    def by_shard(values: Array) -> Array:
      values = values.reshape(plan.shards, -1, *values.shape[1:])
      return parallel.constrain_rows(self.axes.mesh, values)

    def per_slot(dtype: Any) -> Array:
      return by_shard(jnp.zeros(num_slots, dtype))

    prompt_routes, routes = None, None
    if config.with_routes and fresh.prompt_routes is not None:
      one = fresh.prompt_routes
      shape = (num_rows, config.max_completion_length, *one.shape[2:])
      prompt_routes = by_shard(jnp.zeros(one.shape, one.dtype))
      routes = by_shard(jnp.zeros(shape, one.dtype))
    empty = decode.empty_columns(
      config, num_rows, hidden.shape[-1], hidden.dtype
    )
    tokens, mask, stats = jax.tree.map(by_shard, empty)
    return SlotState(
      next_row=jnp.zeros(plan.shards, jnp.int32),
      row=per_slot(jnp.int32),
      live=per_slot(bool),
      step=per_slot(jnp.int32),
      token=per_slot(jnp.int32),
      cache=self.policy.slots.empty(fresh.prompt, num_slots, num_columns),
      tokens=tokens,
      mask=mask,
      stats=stats,
      ended=by_shard(jnp.zeros(num_rows, bool)),
      decode_steps=by_shard(jnp.zeros(num_rows, jnp.int32)),
      prompt_routes=prompt_routes,
      routes=routes,
    )

  def refill(self, state: SlotState) -> SlotState:
    """State after the next F rows of each ready shard started in free slots."""
    plan, config = self.plan, self.config
    ready = _ready(plan, state)[:, None]
    free_first = jnp.argsort(state.live, axis=1, stable=True)
    slots = jnp.where(ready, free_first[:, : plan.refill], plan.slots)
    rows = state.next_row[:, None] + jnp.arange(plan.refill)[None]
    first = state.next_row[:, None] // config.group_size
    numbers = first + jnp.arange(plan.prompts)[None]

    def take(values: Array) -> Array:
      values = values.reshape(plan.shards, -1, *values.shape[1:])
      values = jax.vmap(lambda x, i: jnp.take(x, i, axis=0, mode='clip'))(
        values, numbers
      )
      return values.reshape(-1, *values.shape[2:])

    hidden, fresh = self.policy.prefill(
      self.params, jax.tree.map(take, self.prompts), 1, 1
    )
    share = plan.refill // plan.prompts
    steps = jnp.zeros(rows.shape, jnp.int32)
    live = jnp.broadcast_to(ready, rows.shape)
    state, tokens, ended = self._sample_tokens(
      state,
      rows,
      steps,
      live,
      jnp.repeat(hidden, share, axis=0),
      jnp.repeat(self.policy.logits(self.params, hidden), share, axis=0),
    )
    prompt_routes = state.prompt_routes
    if prompt_routes is not None and fresh.prompt_routes is not None:
      new = fresh.prompt_routes.reshape(
        *numbers.shape, *prompt_routes.shape[2:]
      )
      numbers = jnp.where(ready, numbers, prompt_routes.shape[1])
      prompt_routes = _put(prompt_routes, new, numbers)
    return dataclasses.replace(
      state,
      next_row=state.next_row + jnp.where(ready[:, 0], plan.refill, 0),
      row=_put(state.row, rows, slots),
      live=_put(state.live, ~ended, slots),
      step=_put(state.step, steps + 1, slots),
      token=_put(state.token, tokens, slots),
      cache=self.policy.slots.fill(
        state.cache, fresh.prompt, fresh.prompt_mask, slots
      ),
      prompt_routes=prompt_routes,
    )

  def decode(self, state: SlotState) -> SlotState:
    """State after one decode step of every slot."""
    live = state.live
    # A slot whose row has ended reads and writes the start of its cache, so
    # that no step reads further than the longest live row.
    last = jnp.where(live, jnp.maximum(state.step - 1, 0), 0)
    hidden, cache, routes = self.policy.slots.decode(
      self.weights, state.cache, state.token.reshape(-1), last.reshape(-1)
    )
    one = jnp.ones(live.shape, jnp.int32)
    all_routes = state.routes
    if all_routes is not None and routes is not None:
      routes = routes.reshape(*live.shape, *routes.shape[1:])
      rows = jnp.where(live, state.row, self.plan.rows)
      all_routes = _put(all_routes, routes, rows, last)
    logits = self.policy.logits(self.params, hidden)
    state = dataclasses.replace(
      state,
      cache=cache,
      decode_steps=jax.vmap(lambda x, i, n: x.at[i].add(n))(
        state.decode_steps, state.row, one
      ),
      routes=all_routes,
    )
    state, tokens, ended = self._sample_tokens(
      state, state.row, state.step, live, hidden, logits
    )
    return dataclasses.replace(
      state,
      live=live & ~ended,
      step=state.step + live,
      token=jnp.where(live, tokens, state.token),
    )

  def _sample_tokens(
    self,
    state: SlotState,
    rows: Array,
    steps: Array,
    live: Array,
    hidden: Array,
    logits: Array,
  ) -> tuple[SlotState, Array, Array]:
    """Samples token `steps` of each of `rows`; writes those of live rows.

    Args:
      state: has the buffers.
      rows: i32 [D, x], indices within the shard.
      steps: i32 [D, x], positions in the completions.
      live: bool [D, x], rows to write.
      hidden: [D·x, D'].
      logits: f32 [D·x, V].

    Returns:
      The state; the tokens i32 [D, x]; and bool [D, x], rows that are complete.
    """
    first = jnp.arange(self.plan.shards)[:, None] * self.plan.rows
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
      self.key, (first + rows).reshape(-1)
    )
    drawn, stats, ends = decode.sample_tokens(
      self.axes, self.config, keys, steps.reshape(-1), hidden, logits
    )
    where = jnp.where(live, rows, self.plan.rows)

    def write(buffer: Array, values: Array) -> Array:
      values = values.reshape(*rows.shape, *values.shape[1:])
      return _put(buffer, values, where, steps)

    drawn, ends = drawn.reshape(rows.shape), ends.reshape(rows.shape)
    state = dataclasses.replace(
      state,
      tokens=_put(state.tokens, drawn, where, steps),
      mask=_put(state.mask, live, where, steps),
      stats=jax.tree.map(write, state.stats, stats),
      ended=_put(state.ended, ends, where),
    )
    return state, drawn, ends | (steps + 1 == self.config.max_completion_length)


def _put(buffer: Array, values: Array, *at: Array) -> Array:
  """Buffer with buffer[d, at[d, i]] = values[d, i]; out of range is dropped."""
  return jax.vmap(lambda x, new, *i: x.at[i].set(new, mode='drop'))(
    buffer, values, *at
  )
