"""Continuous batching: a slot whose sequence has ended takes the next one.

S slots are decoded together, each at its own position. Once enough slots are
free, the next prompts are prefilled into them, so the KV cache holds S
sequences, not all B. Each batch shard has its own slots and its own sequences,
in order. A completion is deterministic given its prompt, its row index and the
key, independent of batching.
"""

import dataclasses
import math
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

# A refill takes at most 1/16 of the slots. On average half a refill's slots are
# idle, which is 3 % of the work; smaller refills need more prefills.
_REFILLS = 16
# Names of the two loops in a compiled program.
REFILL_LOOP, DECODE_LOOP = 'refill_slots', 'decode_slots'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotPlan:
  """Sizes of continuous batching, per shard except `shards`.

  Attributes:
    shards: D, batch shards.
    rows: b, completions to sample.
    slots: s, sequences decoded at once.
    refill: F, rows started per refill; divides `rows` and `slots`.
    prompts: M, prompts per refill.
  """

  shards: int
  rows: int
  slots: int
  refill: int
  prompts: int


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


def plan_slots(
  num_rows: int, group_size: int, num_slots: int, shards: int
) -> SlotPlan:
  """Plan with the largest refill of at most 1/16 of the slots.

  A refill is a fraction of a group or several groups, which minimizes the
  number of prefills.

  >>> plan_slots(4096, 16, 512, 2)
  SlotPlan(shards=2, rows=2048, slots=256, refill=16, prompts=1)
  """
  rows, slots = num_rows // shards, num_slots // shards
  refill = max(
    size
    for size in range(1, max(1, slots // _REFILLS) + 1)
    if math.gcd(rows, slots) % size == 0
    and (group_size % size == 0 or size % group_size == 0)
  )
  return SlotPlan(
    shards=shards,
    rows=rows,
    slots=slots,
    refill=refill,
    prompts=max(1, refill // group_size),
  )


def plan_for(
  config: SamplingConfig, num_prompts: int, shards: int
) -> SlotPlan | None:
  """Plan for N prompts; None if all rows are decoded at once."""
  num_rows = num_prompts * config.group_size
  if not 0 < config.num_slots < num_rows:
    return None
  return plan_slots(num_rows, config.group_size, config.num_slots, shards)


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
  params = weight_rounding.round_params(params, config.precision)
  weights = policy.for_decoding(params)
  sampler = _Sampler(policy, axes, config, plan, params, weights, prompts, key)

  def waiting(state: SlotState) -> Array:
    return jnp.any(state.next_row < plan.rows)  # Some rows have not started.

  def decoding(state: SlotState) -> Array:
    some = jnp.any(state.live)  # Else no slot is left to decode.
    return some & ~_refill_is_due(plan, state)  # Else enough slots are free.

  def refill_and_decode(state: SlotState) -> SlotState:
    state = sampler.refill(state)
    with jax.named_scope(DECODE_LOOP):
      return jax.lax.while_loop(decoding, sampler.decode, state)

  with jax.named_scope(REFILL_LOOP):
    state = jax.lax.while_loop(waiting, refill_and_decode, sampler.start())

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
class _Sampler:
  """The two steps, state -> state, and their constants."""

  policy: Policy
  axes: VocabularyAxes
  config: SamplingConfig
  plan: SlotPlan
  params: Params
  weights: Any
  prompts: Prompts
  key: Array

  def start(self) -> SlotState:
    """Initial state: all slots free, no row started."""
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
      cache=self.policy.slots.empty(
        fresh.prompt, num_slots, config.max_completion_length
      ),
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
