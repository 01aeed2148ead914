"""The policy loss in any train loop: arrays in, loss and metrics out.

No config file, no runtime, no model of this package. `plain_config` says which
loss; `loss_from_logits` and `loss_from_hidden` compute it from what a model of
yours gives. Both follow the alignment of `base.py`: entry t of the logits, or
states, predicts token t.
"""

import dataclasses
from typing import Any

import jax

from dppo_jax import hardware, parallel
from dppo_jax.base import Array, Batch, Metrics
from dppo_jax.learner.loss import (
  make_head_loss,
  make_targets,
  reference_loss,
)
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.learner.metrics import trust_region_metrics
from dppo_jax.lm_head.fused_loss import head_loss
from dppo_jax.lm_head.inputs import VocabularyConfig
from dppo_jax.ops.masking import aggregation_weights
from dppo_jax.ops.trust_regions import open_thresholds
from dppo_jax.parallel import VocabularyAxes


def plain_config(rule: str, divergence: str, **options: Any) -> LossConfig:
  """A loss with every other axis switched off: DPPO's eq. 23 with that M.

  Args:
    rule: a key of `TRUST_REGIONS`.
    divergence: a key of `DIVERGENCES`.
    **options: fields of `Thresholds`, open unless given, and of `LossConfig`.

  >>> plain_config('divergence', 'binary_tv', delta_high=0.2).ratio_cap
  inf
  """
  bounds = open_thresholds()
  names = [field.name for field in dataclasses.fields(bounds)]
  given = {name: options.pop(name) for name in names if name in options}
  plain = dict(
    prompt_length=0,
    shared_rows=1,
    temperature=1.0,
    top_k_set='union',
    anchor='rollout',
    bounds=dataclasses.replace(bounds, **given),
    loss_form='score',
    importance='token',
    ratio_cap=float('inf'),
    ratio_floor=0.0,
    kl_coefficient=0.0,
    kl_estimator='k3',
    entropy_coefficient=0.0,
    load_balance_coefficient=0.0,
    predictive_tail='aggregated',
    vocab_size=0,
    centering='off',
    centering_mask='token',
    anchor_slip=0.0,
  )
  fields: Any = {**plain, **options}
  return LossConfig(rule=rule, divergence=divergence, **fields)


def loss_from_logits(
  config: LossConfig,
  logits: Array,
  batch: Batch,
  *,
  anchor_logits: Array | None = None,
  aggregation: str = 'token_mean',
) -> tuple[Array, Metrics]:
  """Loss f32 [], differentiable in `logits`, and metrics.

  Args:
    config: of `plain_config`.
    logits: [B, T, V], entry t predicts token t.
    batch: [B, T] arrays; what `completion_mask` leaves out is not read.
    anchor_logits: [B, T, V], for exact divergences.
    aggregation: a key of `AGGREGATIONS`.

  Returns:
    The loss, and the metrics of `trust_region_metrics`.

  >>> import jax.numpy as jnp
  >>> from dppo_jax.base import Batch, TokenStats
  >>> mask = jnp.ones((1, 2), bool)
  >>> batch = Batch(
  ...   tokens=jnp.array([[0, 1]]), token_mask=mask, completion_mask=mask,
  ...   advantages=jnp.array([[1.0, 1.0]]),
  ...   rollout=TokenStats(log_probs=jnp.log(jnp.array([[0.5, 0.1]]))))
  >>> config = plain_config('divergence', 'binary_tv', delta_high=0.2)
  >>> logits = jnp.log(jnp.array([[[0.6, 0.4], [0.5, 0.5]]]))
  >>> loss, metrics = loss_from_logits(config, logits, batch)
  >>> print(metrics['trust_region/fraction_masked'])  # |.5 - .1| > .2
  0.5
  """
  targets = make_targets(config, batch, _weights(config, batch, aggregation))
  loss, decisions = reference_loss(config, logits, targets, anchor_logits)
  return loss, trust_region_metrics(batch, decisions, num_minibatches=1)


def loss_from_hidden(
  config: LossConfig,
  head: Array,
  hidden: Array,
  batch: Batch,
  *,
  anchor_head: Array | None = None,
  aggregation: str = 'token_mean',
  axes: VocabularyAxes | None = None,
  head_chunk_tokens: int | None = None,
) -> tuple[Array, Metrics]:
  """`loss_from_logits` of hidden @ head.T, fused: no array of tokens x V.

  Args:
    config: of `plain_config`.
    head: [V, D], differentiable.
    hidden: [B, T, D], entry t predicts token t; differentiable.
    batch: as in `loss_from_logits`.
    anchor_head: [V, D], for exact divergences; `batch.rollout.hidden` holds the
      states that it read.
    aggregation: a key of `AGGREGATIONS`.
    axes: mesh axes of rows and vocabulary; None is one device.
    head_chunk_tokens: tokens per chunk of the head; None is by the device.

  >>> import jax.numpy as jnp
  >>> from dppo_jax.base import Batch, TokenStats
  >>> mask = jnp.ones((2, 4), bool)
  >>> batch = Batch(
  ...   tokens=jnp.zeros((2, 4), jnp.int32), token_mask=mask,
  ...   completion_mask=mask, advantages=jnp.ones((2, 4)),
  ...   rollout=TokenStats(log_probs=jnp.full((2, 4), -2.0)))
  >>> config = plain_config('divergence', 'binary_kl', delta_high=0.05)
  >>> step = jax.value_and_grad(
  ...   lambda head, hidden: loss_from_hidden(config, head, hidden, batch),
  ...   argnums=(0, 1), has_aux=True)
  >>> (loss, metrics), (d_head, d_hidden) = step(
  ...   jnp.zeros((8, 3)), jnp.ones((2, 4, 3)))
  >>> d_head.shape, d_hidden.shape
  ((8, 3), (2, 4, 3))
  """
  if axes is None:
    mesh = parallel.make_mesh(1, 1, 1, jax.devices()[:1])
    axes = VocabularyAxes(mesh, parallel.BATCH_AXES, parallel.VOCAB_AXIS)
  if head_chunk_tokens is None:
    kind = axes.mesh.devices.flat[0].device_kind
    columns = -(-head.shape[0] // axes.num_shards)
    head_chunk_tokens = hardware.head_chunk_tokens(kind, columns)
  layout = VocabularyConfig(
    axes=axes,
    head_chunk_tokens=head_chunk_tokens,
    temperature=config.temperature,
  )
  weights = _weights(config, batch, aggregation)
  targets = make_targets(config, batch, weights, anchor_head)
  # `custom_vjp` forgets types.
  found: Any = head_loss(layout, make_head_loss(config), head, hidden, targets)
  loss, decisions = found
  return loss, trust_region_metrics(batch, decisions, num_minibatches=1)


def _weights(config: LossConfig, batch: Batch, aggregation: str) -> Array:
  mask = batch.completion_mask[:, config.prompt_length :]
  return aggregation_weights(mask, aggregation, length_norm=1.0)
