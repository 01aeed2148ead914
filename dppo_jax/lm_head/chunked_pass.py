"""The pass over the vocabulary on one device, chunk by chunk."""

import dataclasses
import functools
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp

from dppo_jax.base import Array, Movement, TokenStats
from dppo_jax.lm_head import two_policies, vocabulary_shard
from dppo_jax.lm_head.inputs import HeadLoss, Targets, VocabularyConfig
from dppo_jax.lm_head.logit_gradient import Slopes, logit_gradient
from dppo_jax.lm_head.two_policies import Centre, TwoPolicies
from dppo_jax.lm_head.vocabulary_shard import Chunks, ChunkStats, Shard

# Gradients to compute, and those of the head and of the states.
Wrt = Literal['none', 'hidden', 'both']
Gradients = tuple[Array | None, Array | None]
# Of a chunk, the part that is measured apart from the rest where that suffices.
_FEW = 8


@flax.struct.dataclass(kw_only=True)
class PartialStats:
  """Per-token results so far, rows flattened: f32 [B·R], 0.0 if not yet."""

  log_probs: Array
  movement: Movement
  entropy: Array | None
  centre: Array | None
  top_log_probs: Array | None


def run_on_device(
  config: VocabularyConfig,
  loss: HeadLoss,
  size: int,
  head: Array,
  hidden: Array,
  targets: Targets,
  *,
  wrt: Wrt,
) -> tuple[Array, Any, Gradients]:
  """Loss and gradients on one device: its rows, its part of the vocabulary.

  Args:
    config: layout.
    loss: which.
    size: V; the last device may hold padding.
    head: [columns, D], of this device.
    hidden: [b, R, D], of this device.
    targets: of this device.
    wrt: which gradients.

  Returns:
    Loss f32 [] of all devices, record, and (dhead, dhidden) by `wrt`.
  """
  axes = config.axes
  shard = Shard.of(axes, head.shape[0], size)
  run = _Pass(
    config=config,
    loss=loss,
    shard=shard,
    chunks=Chunks.of(targets.mask, config.head_chunk_tokens),
    head=head,
    weights=shard.pad(head.astype(hidden.dtype)),
    anchor_weights=_anchor_weights(loss, shard, targets),
    hidden=hidden,
    targets=targets,
  )
  known = _nothing_known(loss, targets)
  if wrt == 'none':
    known = run.chunks.loop(run.forward, known)
    value, record = run.loss_so_far(known)
    return axes.sum_rows(value), record, (None, None)

  settled = None
  if loss.needs_full_sequence:
    known = run.chunks.loop(run.forward, known)
    settled = run.dloss_dlogp(known)
  states = jnp.zeros((targets.mask.size, hidden.shape[-1]), hidden.dtype)
  weights = None
  if wrt == 'both':
    weights = jnp.zeros(run.weights.shape, jnp.float32)
  step = functools.partial(run.forward_and_back, settled)
  known, d_hidden, d_head = run.chunks.loop(step, (known, states, weights))
  value, record = run.loss_so_far(known)
  if d_head is not None:
    d_head = axes.sum_rows(d_head[: head.shape[0]]).astype(head.dtype)
  d_hidden = d_hidden.reshape(hidden.shape)
  return axes.sum_rows(value), record, (d_head, d_hidden)


# What is known, d_hidden, d_head.
_Carry = tuple[PartialStats, Array, Array | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pass:
  """State that the chunks of a pass on one device share."""

  config: VocabularyConfig
  loss: HeadLoss
  shard: Shard
  chunks: Chunks
  head: Array
  weights: Array
  anchor_weights: Array | None
  hidden: Array
  targets: Targets

  def forward(self, index: Any, known: PartialStats) -> PartialStats:
    """Stats known after a chunk."""
    return self._forward(index, known)[0]

  def forward_and_back(
    self, settled: Slopes | None, index: Any, carry: _Carry
  ) -> _Carry:
    """A chunk's stats, and its share of both gradients.

    Args:
      settled: slopes of all tokens, or None to compute them from the stats
        known after this chunk.
      index: of the chunk.
      carry: what is known, d_hidden [B·R, D] and d_head f32 [width, D], the
        last one None for a frozen head.
    """
    known, d_hidden, d_head = carry
    known, chunk, x, tokens, centre = self._forward(index, known)
    slopes = self.dloss_dlogp(known) if settled is None else settled
    slopes = jax.tree.map(functools.partial(self._of_chunk, index), slopes)
    d_logits = logit_gradient(
      self.shard,
      chunk,
      tokens,
      slopes,
      centre,
      self.config.temperature,
      x.dtype,
    )
    d_x = vocabulary_shard.hidden_gradient(
      self.shard, d_logits, self.weights, self.head, tokens
    )
    d_hidden = self.chunks.put(d_hidden, index, d_x.astype(x.dtype))
    if d_head is not None:
      d_head = vocabulary_shard.add_head_gradient(
        self.shard, d_head, d_logits, x, tokens
      )
    return known, d_hidden, d_head

  def loss_so_far(self, known: PartialStats) -> tuple[Array, Any]:
    """Loss and record, from the stats known so far."""

    def by_rows(leaf: Array) -> Array:
      return leaf.reshape(*self.targets.mask.shape, *leaf.shape[1:])

    rows = jax.tree.map(by_rows, known)
    stats = TokenStats(
      log_probs=rows.log_probs,
      entropy=rows.entropy,
      top_log_probs=rows.top_log_probs,
      centre=rows.centre,
    )
    return self.loss.loss_from_stats(self.targets.context, stats, rows.movement)

  def dloss_dlogp(self, known: PartialStats) -> Slopes:
    """Slopes, right for every token whose stats suffice."""

    def value(moved: Slopes) -> Array:
      now = dataclasses.replace(known, **moved._asdict())
      return self.loss_so_far(now)[0]

    return jax.grad(value)(Slopes(known.log_probs, known.entropy, known.centre))

  def _of_chunk(self, index: Any, values: Array) -> Array:
    return self.chunks.take(values.reshape(self.targets.mask.shape), index)

  def _forward(
    self, index: Any, known: PartialStats
  ) -> tuple[PartialStats, ChunkStats, Array, Array, Centre | None]:
    def take(leaf: Array) -> Array:
      return self.chunks.take(leaf, index)

    x = take(self.hidden)
    tokens: Array = take(self.targets.tokens)
    anchor: TokenStats = jax.tree.map(take, self.targets.anchor)
    chunk = vocabulary_shard.chunk_stats(
      self.shard,
      self.weights,
      x,
      tokens,
      anchor.top_ids,
      self.config.temperature,
      with_entropy=self.loss.with_entropy,
      support=anchor.support,
    )
    both, context = None, None
    if self.loss.needs_distributions:
      both = self._distributions(tokens, anchor, chunk)
    if self.loss.reads_context:
      context = jax.tree.map(take, self.targets.context)
    sums: tuple[Array, ...] = ()
    if self.loss.certify_fn is not None:
      movement = self._certified(context, tokens, anchor, chunk)
    elif self.loss.integrand is not None and both is not None:
      movement, sums = two_policies.measure(
        self.shard, self.loss.integrand, self.loss.rate, both, anchor, chunk
      )
    else:
      movement = Movement(divergence=jnp.zeros_like(chunk.stats.log_probs))
      if self.loss.divergence_fn is not None:
        divergence = self.loss.divergence_fn(tokens, anchor, chunk.stats)
        movement = Movement(divergence=divergence)
      if self.loss.rate_fn is not None:
        rate, sums = self.loss.rate_fn(tokens, anchor, chunk.stats)
        movement = dataclasses.replace(movement, rate=rate)
    movement = self._metered(context, tokens, movement, sums, anchor, chunk)
    centre = self._centre(context, tokens, movement, sums, anchor, chunk, both)
    found = PartialStats(
      log_probs=chunk.stats.log_probs,
      movement=movement,
      entropy=chunk.stats.entropy,
      centre=None if centre is None else centre.value,
      top_log_probs=chunk.stats.top_log_probs if self.loss.with_top_k else None,
    )

    def put(old: Array, new: Array) -> Array:
      return self.chunks.put(old, index, new)

    return jax.tree.map(put, known, found), chunk, x, tokens, centre

  def _distributions(
    self, tokens: Array, anchor: TokenStats, chunk: ChunkStats
  ) -> TwoPolicies:
    """Whole distributions of a chunk, each at its own temperature."""
    return two_policies.distributions(
      self.shard,
      self.anchor_weights,
      anchor,
      self.config.temperature * (1.0 + self.loss.anchor_slip),
      chunk,
      tokens,
    )

  def _certified(
    self, context: Any, tokens: Array, anchor: TokenStats, chunk: ChunkStats
  ) -> Movement:
    """Movement whose divergence is exact where its bounds are open.

    Devices with the same tokens take the same branch: what decides is summed
    over their columns.
    """
    if self.loss.certify_fn is None or self.loss.integrand is None:
      raise ValueError('HeadLoss.certify_fn: needs an integrand')
    integrand = self.loss.integrand
    lower, undecided = self.loss.certify_fn(
      context, tokens, anchor, chunk.stats
    )

    def measure(tokens: Array, anchor: TokenStats, chunk: ChunkStats) -> Array:
      both = self._distributions(tokens, anchor, chunk)
      moved, _ = two_policies.measure(
        self.shard, integrand, None, both, anchor, chunk
      )
      return moved.divergence

    size = tokens.shape[0]
    few = max(1, size // _FEW)

    def measure_few() -> Array:
      (rows,) = jnp.nonzero(undecided, size=few, fill_value=0)

      def of_rows(leaf: Array) -> Array:
        return leaf[rows]

      some = jax.tree.map(of_rows, (tokens, anchor, chunk))
      return jnp.zeros_like(lower).at[rows].set(measure(*some))

    count = jnp.sum(undecided)
    exact = jax.lax.switch(
      (count > 0).astype(jnp.int32) + (count > few),
      (
        lambda: jnp.zeros_like(lower),
        measure_few,
        lambda: measure(tokens, anchor, chunk),
      ),
    )
    return Movement(divergence=jnp.where(undecided, exact, lower))

  def _metered(
    self,
    context: Any,
    tokens: Array,
    movement: Movement,
    sums: tuple[Array, ...],
    anchor: TokenStats,
    chunk: ChunkStats,
  ) -> Movement:
    """The movement of a chunk with its meters, where K are recorded."""
    if self.loss.meter_fn is None or anchor.top_log_probs is None:
      return movement
    meters = self.loss.meter_fn(
      context, tokens, anchor, chunk.stats, movement, sums
    )
    return dataclasses.replace(movement, meters=meters)

  def _centre(
    self,
    context: Any,
    tokens: Array,
    movement: Movement,
    sums: tuple[Array, ...],
    anchor: TokenStats,
    chunk: ChunkStats,
    both: TwoPolicies | None,
  ) -> Centre | None:
    """The centring term of a chunk, or None."""
    if self.loss.centering == 'off' or self.loss.candidate_weights is None:
      return None
    return two_policies.centre(
      self.shard,
      self.loss.candidate_weights(context, movement, sums),
      tokens,
      anchor,
      chunk,
      both if self.loss.centering == 'exact' else None,
    )


def _anchor_weights(
  loss: HeadLoss, shard: Shard, targets: Targets
) -> Array | None:
  if not loss.needs_anchor_logits:
    return None
  if targets.anchor_head is None or targets.anchor.hidden is None:
    raise ValueError(
      'trust_region.divergence, objective.centering: exact ones compare whole'
      ' distributions and need the hidden states and the head of the anchor;'
      ' none were recorded'
    )
  return shard.pad(targets.anchor_head.astype(targets.anchor.hidden.dtype))


def _nothing_known(loss: HeadLoss, targets: Targets) -> PartialStats:
  num_rows = targets.mask.size
  zero = jnp.zeros((num_rows,), jnp.float32)
  top = None
  if loss.with_top_k or loss.centering == 'topk':
    if targets.anchor.top_ids is None:
      raise ValueError(
        'sampling.top_k: log-probs of the recorded ids are needed and none'
        ' were recorded; set sampling.top_k > 0'
      )
  if loss.with_top_k and targets.anchor.top_ids is not None:
    top = jnp.zeros((num_rows, targets.anchor.top_ids.shape[-1]), jnp.float32)
  rate = zero if loss.rate is not None else None
  meters = {}
  if targets.anchor.top_log_probs is not None:
    meters = dict.fromkeys(loss.meters, zero)
  return PartialStats(
    log_probs=zero,
    movement=Movement(divergence=zero, rate=rate, meters=meters),
    entropy=zero if loss.with_entropy else None,
    centre=None if loss.centering == 'off' else zero,
    top_log_probs=top,
  )
