"""Whether a rollout was sampled from the weights of its step.

Three links, each named where it breaks:

  weights    digests of the sampler's weights against those of the parameters,
             rounded again: a stale, swapped or permuted copy
  canary     the first row of every batch shard, scored by the trainer's forward
             pass with the sampler's weights: what was recorded is what the law
             says, over all turns, slots and filters
  fields     what the loss reads is what the sampler recorded

Nothing waits for it: the programs are queued behind the rollout and their
results, a few numbers, are read when that is there.
"""

import collections
from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax import parallel
from dppo_jax.base import (
  Array,
  Batch,
  Metrics,
  Params,
  Rollout,
  TokenStats,
  TrainState,
)
from dppo_jax.learner import movement, scoring
from dppo_jax.models import cpu_bfloat16
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.masking import masked_sum
from dppo_jax.ops.trust_regions import TRUST_REGIONS
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.programs import compiled, compiler_flags, digests
from dppo_jax.runtime.programs.parts import complete
from dppo_jax.runtime.rollouts.weight_sync import WeightSync, noise_key

# Nats, mean over many tokens at temperature 1, that rounding explains: measured
# below 1e-6 where all is float32, and 0.02 to 0.05 in bfloat16.
EXACT, ROUNDED = 1e-3, 0.1
# A row is few tokens: SmolLM2-135M in bfloat16 is off by up to 0.07 nats over
# 16 of them, and 0.3 at a single one at temperature 0.6. What is dropped or of
# other weights is off by whole nats.
_MARGIN = 5.0
# A mean over fewer tokens counts as one over so many.
_FEWEST = 4
# Steps whose digests are remembered, to name a stale copy.
_REMEMBERED = 16
# Bits of a digest that an f32 holds.
_METRIC_BITS = 24


class SamplerError(RuntimeError):
  """The sampler has other weights than its step, or records something else."""


class IntegrityCheck:
  """Checks of the rollouts of a step; `settle` reads them."""

  def __init__(self, experiment: Experiment, parts: Any, sync: WeightSync):
    """Compiles nothing yet.

    Args:
      experiment: the run.
      parts: ModelParts of the run.
      sync: its weight sync.
    """
    self._every = experiment.sampling.integrity_every_n_steps
    self._sync = sync
    precision = experiment.sampling.precision
    self._limit = limit_of(experiment)
    # Another program may round products otherwise; a cast is a cast. And where
    # nothing moves, the program for the weights does for the parameters, too.
    coarse = precision not in ('float32', 'bfloat16')
    self._moves_again = sync.move is None or sync.noisy or coarse
    everywhere = parallel.replicated(parts.mesh)  # Every host reads them.
    self._sums = jax.jit(digests.sums, out_shardings=everywhere)

    def expected(params: Params) -> dict[str, Array]:
      return digests.sums(sync(params))

    self._expected = jax.jit(
      expected,
      in_shardings=(parts.shardings.params,),
      out_shardings=everywhere,
    )
    self._canary = compile_canary(experiment, sync)
    self._step = 0
    self._wanted: Any = None
    self._pending: list[Any] = []
    self._known: collections.OrderedDict[int, Any] = collections.OrderedDict()

  def synced(self, state: TrainState) -> None:
    """Takes down what the sampler's weights of a step must be."""
    self._step = int(state.step)
    self._wanted = None
    if self._every and self._step % self._every == 0:
      self._wanted = self._expected_of(state)

  def sampled(self, weights: Params, rollout: Rollout) -> None:
    """Checks a rollout, and what it was sampled from."""
    if self._wanted is None:
      return
    rollout = dataclasses.replace(rollout, conversation=None)
    base = self._sync.parts.base
    self._pending.append(
      (self._sums(weights), self._canary(base, weights, rollout))
    )

  def settle(self) -> Metrics:
    """Metrics of the rollouts since `synced`, the worst of each; none if none.

    Raises:
      SamplerError: a check failed.
    """
    pending, self._pending = jax.device_get(self._pending), []
    if not pending:
      return {}
    wanted = jax.device_get(self._wanted)
    self._known[self._step] = wanted
    if len(self._known) > _REMEMBERED:
      self._known.popitem(last=False)
    for found, _ in pending:
      self._compare(found, wanted)
    worst = {
      name: max(canary[name] for _, canary in pending) for name in pending[0][1]
    }
    check_canary(self._step, worst, self._limit)
    text = digests.digest(self._sync.abstract_weights, pending[-1][0])
    number = int(text, 16) % 2**_METRIC_BITS
    return {
      'integrity/digest': jnp.float32(number),
      **{f'integrity/{name}': jnp.float32(x) for name, x in worst.items()},
    }

  def _expected_of(self, state: TrainState) -> Any:
    if self._moves_again:
      noisy = self._sync.noisy
      key = noise_key(state.key, self._step) if noisy else None
      return self._sums(self._sync(state.params, key))
    return self._expected(state.params)

  def _compare(
    self, found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]
  ) -> None:
    apart = digests.differences(found, wanted)
    if not apart:
      return
    for step, sums in self._known.items():
      if step != self._step and not digests.differences(found, sums):
        apart = [f'they are those of step {step}: a stale copy']
    raise SamplerError(
      f'step {self._step}: the weights that were sampled from are not those of'
      f' the parameters: {"; ".join(apart[:4])}{"; …" if apart[4:] else ""}.'
      ' Nothing of this step was trained on.'
    )


def limit_of(experiment: Experiment) -> float:
  """Nats, of a mean over a row, above which a record stops the run.

  Logits are divided by the temperature, and so is their rounding.

  Args:
    experiment: the run.
  """
  sampling = experiment.sampling
  exact = sampling.precision == experiment.model.dtype == 'float32'
  limit = EXACT if exact else _MARGIN * ROUNDED
  return limit / min(1.0, sampling.temperature)


def compile_canary(experiment: Experiment, sync: WeightSync) -> Any:
  """(base, weights, rollout) -> differences by name, f32 [] each.

  `log_probs`, `top_log_probs` and `entropy`: mean |recorded - scored| in nats
  over the tokens of the first row of every batch shard, or over 4 where there
  are fewer; `turn_edges`: largest of log-probs at the first token of a turn
  after the first one.

  Args:
    experiment: the run.
    sync: its weight sync.
  """
  parts = sync.parts
  layout = compiled.vocabulary_layout(
    experiment, parts.mesh, experiment.sampling.temperature
  )
  first = experiment.loss.prompt_length
  shards = parallel.num_batch_shards(parts.mesh)

  def canary(
    base: Params | None, weights: Params, rollout: Rollout
  ) -> dict[str, Array]:
    def first_rows(leaf: Array) -> Array:
      return leaf.reshape(shards, -1, *leaf.shape[1:])[:, 0]

    some = jax.tree.map(first_rows, rollout)
    scored = scoring.score(
      parts.policy,
      layout,
      complete(parts, base, weights),
      some,
      prompt_length=first,
      shared_rows=1,
      with_entropy=True,
      with_hidden=False,
    )
    recorded = scoring.completion_columns(some.stats, first)
    return _apart(recorded, scored, some.completion_mask[:, first:])

  return jax.jit(
    canary,
    in_shardings=(None, parts.shardings.params, parts.batch_sharding),
    out_shardings=parallel.replicated(parts.mesh),
    # A row of many.
    compiler_options=compiler_flags.of_small_program(
      cpu_bfloat16.platform_of(parts.mesh)
    ),
  )


def _apart(
  recorded: TokenStats, scored: TokenStats, mask: Array
) -> dict[str, Array]:
  found = {}
  for name in ('log_probs', 'top_log_probs', 'entropy'):
    mine, theirs = getattr(recorded, name), getattr(scored, name)
    if mine is None or theirs is None:
      continue
    off = jnp.abs(mine - theirs)
    if name == 'log_probs':
      edges = mask & (jnp.cumsum(mask, axis=1) > 1)
      edges &= ~jnp.pad(mask[:, :-1], ((0, 0), (1, 0)))
      found['turn_edges'] = jnp.max(jnp.where(edges, off, 0.0))
    else:
      off = off.reshape(*mask.shape, -1).mean(axis=-1)
    count = jnp.maximum(jnp.sum(mask), _FEWEST)
    found[name] = masked_sum(off, mask) / count
  return found


def check_canary(step: int, found: Mapping[str, float], limit: float) -> None:
  """Refuses records that are not of the law.

  Args:
    step: train steps taken.
    found: as of `compile_canary`.
    limit: nats, of a mean.

  Raises:
    SamplerError: one is above it, or no number.
  """
  bad = [
    f'{name} by {off:.3g} nats'
    for name, off in found.items()
    if name != 'turn_edges' and not off <= limit
  ]
  if bad:
    raise SamplerError(
      f'step {step}: the sampler recorded other values than a forward pass with'
      f' its weights gives, and rounding explains {limit:g}: {", ".join(bad)}'
      ' on average. Nothing of this step was trained on.'
      ' sampling.integrity_every_n_steps=0 trains without this check.'
    )


def count_fields(experiment: Experiment, batch: Batch) -> Metrics:
  """`integrity/fields_used`, of the record by the loss, and `…_recorded`.

  Args:
    experiment: the run.
    batch: as the train step takes it.

  Raises:
    SamplerError: a field that is read was not recorded.
  """
  recorded = {
    name for name, leaf in vars(batch.rollout).items() if leaf is not None
  }
  if batch.routes is not None:
    recorded.add('routes')
  used = used_fields(experiment)
  missing = sorted(used - recorded)
  if missing:
    raise SamplerError(
      f'the loss reads {", ".join(missing)}, and the sampler recorded'
      f' {", ".join(sorted(recorded))}.'
    )
  return {
    'integrity/fields_used': jnp.float32(len(used)),
    'integrity/fields_recorded': jnp.float32(len(recorded)),
  }


def used_fields(experiment: Experiment) -> set[str]:
  """Names of what the loss reads of a rollout's stats, and `routes`."""
  loss = experiment.loss
  row = DIVERGENCES[loss.divergence]
  used = {'log_probs'}
  if row.records == 'top_k' or row.certified or loss.centering == 'topk':
    used.add('top_ids')
    if loss.anchor == 'rollout':
      used.add('top_log_probs')
  if movement.keeps_hidden(loss) and loss.anchor == 'rollout':
    used.add('hidden')
  if TRUST_REGIONS[loss.rule].reads_entropy:
    used.add('entropy')
  if experiment.sampling.support is not None:
    used.add('support')
  if experiment.sampling.with_routes and experiment.model.num_experts:
    used.add('routes')
  return used
