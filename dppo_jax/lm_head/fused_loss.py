"""The head in one pass over the vocabulary: loss, stats and both gradients.

The trust region carries no gradient and the loss depends on the parameters
through log pi(y) and the entropy alone. With coefficients a = dL / dlog pi(y)
and h = dL / dH, the gradient of a token's logits z is

  dL/dz = a (onehot(y) - p) - h p (log p + H),      p = softmax(z)

and a, h are known as soon as the token's log-sum-exp and its K gathered
logits are. So tokens are taken C at a time: three matrix products per chunk
(logits, dX, dW), nothing computed twice and no array of tokens x V.
Sequence-level rules need the logits twice: four products instead of three.
Score centering adds e (c_v - p_v sum c) to the gradient, with e = dL / dcentre
and the coefficients c of K tokens or of all (`ops/centering.py`).

Over a mesh every device holds its own rows and V / T columns. Three reductions
over the vocabulary axis per chunk: the maximum, K + 2 sums per token (one more
with the entropy), and dX in f32. Logits never leave their device.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dppo_jax.base import Array, Movement, TokenStats
from dppo_jax.lm_head.chunked_pass import Gradients, Wrt, run_on_device
from dppo_jax.lm_head.inputs import HeadLoss, Targets, VocabularyConfig


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def head_loss(
  config: VocabularyConfig,
  loss: HeadLoss,
  head: Array,
  hidden: Array,
  targets: Targets,
) -> tuple[Array, Any]:
  """Loss of a batch from the states that predict its tokens.

  Args:
    config: layout.
    loss: which.
    head: [V, D], differentiable; cast to the dtype of `hidden`.
    hidden: [B, R, D], differentiable.
    targets: the rest; nothing of it is differentiated.

  Returns:
    Loss f32 [], and the record of `loss.loss_from_stats`, without a gradient.

  Numerics: logits, sums and the gradient of the head are f32. The maximum is
  subtracted before the logarithm of the sum, which is then >= 0, so that no
  log-prob exceeds 0. Relative errors of both gradients against f64, measured
  on a CPU with the sampled token at p = .3 to .9999: at most 2e-6 for f32
  states; for bf16 states .0021, where plain autodiff of the same products has
  .0015 to .0020.
  """
  return _value_and_record(config, loss, head, hidden, targets)


def _value_and_record(
  config: VocabularyConfig,
  loss: HeadLoss,
  head: Array,
  hidden: Array,
  targets: Targets,
) -> tuple[Array, Any]:
  """`head_loss` where nothing is differentiated."""
  padded, targets = _pad(config, head, hidden, targets)
  run = _on_devices(config, loss, head.shape[0], targets, 'none')
  return run(padded, hidden, targets)[:2]


def _forward(
  config: VocabularyConfig,
  loss: HeadLoss,
  head: Any,
  hidden: Any,
  targets: Any,
) -> tuple[tuple[Array, Any], Gradients]:
  """Both gradients at once; that of a frozen head is left out."""

  # Each leaf says whether anything is differentiated with respect to it.
  def plain(tree: Any) -> Any:
    return jax.tree.map(_value, tree, is_leaf=_is_primal)

  wrt = 'both' if head.perturbed else 'hidden'
  weights, hidden, targets = plain(head), plain(hidden), plain(targets)
  size = weights.shape[0]
  weights, targets = _pad(config, weights, hidden, targets)
  run = _on_devices(config, loss, size, targets, wrt)
  value, record, (d_head, d_hidden) = run(weights, hidden, targets)
  d_head = None if d_head is None else d_head[:size]
  return (value, record), (d_head, d_hidden)


def _is_primal(leaf: Any) -> bool:
  return hasattr(leaf, 'perturbed')


def _value(leaf: Any) -> Array:
  return leaf.value


def _backward(
  config: VocabularyConfig,
  loss: HeadLoss,
  gradients: Gradients,
  cotangent: tuple[Any, Any],
) -> tuple[Any, Any, None]:
  del config, loss
  scale = cotangent[0]
  if isinstance(scale, jax.custom_derivatives.SymbolicZero):
    scale = jnp.zeros(())  # Only the record is used.

  def scaled(gradient: Array | None) -> Any:
    if gradient is None:
      return None
    # The scale is not rounded to 16 bits, the product is.
    return (gradient * scale).astype(gradient.dtype)

  return scaled(gradients[0]), scaled(gradients[1]), None


head_loss.defvjp(_forward, _backward, symbolic_zeros=True)


def _only_record(
  context: None, stats: TokenStats, movement: Movement
) -> tuple[Array, TokenStats]:
  del context, movement
  return jnp.zeros(()), stats


def head_stats(
  config: VocabularyConfig,
  head: Array,
  hidden: Array,
  tokens: Array,
  mask: Array,
  *,
  top_ids: Array | None,
  with_entropy: bool,
  support: Array | None = None,
) -> TokenStats:
  """Stats of tokens and recorded ids, without a gradient.

  Args:
    config: layout.
    head: [V, D].
    hidden: [B, R, D].
    tokens: i32 [B, R].
    mask: bool [B, R]; elsewhere the stats are 0.0.
    top_ids: i32 [B, R, K] or None.
    with_entropy: whether to compute the entropy.
    support: i32 [B, R, S], tokens that could be sampled; None is all.

  Returns:
    TokenStats of [B, R].
  """
  zero = jnp.zeros(mask.shape, jnp.float32)
  targets = Targets(
    tokens=tokens,
    mask=mask,
    anchor=TokenStats(log_probs=zero, top_ids=top_ids, support=support),
    context=None,
  )
  loss = HeadLoss(
    loss_from_stats=_only_record,
    with_entropy=with_entropy,
    with_top_k=top_ids is not None,
  )
  _, stats = _value_and_record(config, loss, head, hidden, targets)
  return dataclasses.replace(stats, top_ids=top_ids)


def _on_devices(
  config: VocabularyConfig,
  loss: HeadLoss,
  size: int,
  targets: Targets,
  wrt: Wrt,
) -> Callable[[Array, Array, Targets], tuple[Array, Any, Gradients]]:
  """`run_on_device` on every device of the mesh, as a function of arrays."""
  axes = config.axes
  local = functools.partial(run_on_device, config, loss, size, wrt=wrt)
  if axes.mesh.size == 1:
    return local
  columns: Any = PartitionSpec(axes.vocabulary)
  rows: Any = PartitionSpec(axes.rows)
  whole = PartitionSpec()
  spread = Targets(
    tokens=rows, mask=rows, anchor=rows, context=rows, anchor_head=columns
  )
  if targets.anchor_head is None:
    spread = dataclasses.replace(spread, anchor_head=None)
  spread_gradients = (
    columns if wrt == 'both' else None,
    None if wrt == 'none' else rows,
  )
  return jax.shard_map(
    local,
    mesh=axes.mesh,
    in_specs=(columns, rows, spread),
    out_specs=(whole, rows, spread_gradients),
    check_vma=False,  # The reductions are written out in the pass.
  )


def _pad(
  config: VocabularyConfig, head: Array, hidden: Array, targets: Targets
) -> tuple[Array, Targets]:
  """Heads of whole shards; a device pads its own to whole lanes."""
  chex.assert_rank([head, hidden, targets.tokens], [2, 3, 2])
  chex.assert_equal_shape([targets.tokens, targets.mask])
  if config.axes.num_shards == 1:
    return head, targets
  padding = ((0, -head.shape[0] % config.axes.num_shards), (0, 0))
  if targets.anchor_head is not None:
    padded = jnp.pad(targets.anchor_head, padding)
    targets = dataclasses.replace(targets, anchor_head=padded)
  return jnp.pad(head, padding), targets
