"""Rounding of the gradients of the pass, where the sampled token is sure."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax import parallel
from dppo_jax.base import TokenStats
from dppo_jax.lm_head import fused_loss, inputs
from tests.support import factories


@functools.cache
def _sure(probability):
  return _confident(np.full(128, probability))


def _confident(probabilities, seed=0):
  """Head, bf16 states and tokens, whose probabilities are about those."""
  rng = np.random.default_rng(seed)
  head = rng.normal(size=(256, 32)).astype(np.float32) / 5
  head = head.astype(jnp.bfloat16).astype(np.float64)
  count = len(probabilities)
  start, tokens = (
    0.5 * rng.normal(size=(count, 32)),
    rng.integers(0, 256, count),
  )
  low, high = np.zeros((count, 1)), np.full((count, 1), 400.0)
  for _ in range(50):
    middle = (low + high) / 2
    law = _softmax((start + middle * head[tokens]) @ head.T)
    below = (law[np.arange(count), tokens] < probabilities)[:, None]
    low, high = np.where(below, middle, low), np.where(below, high, middle)
  hidden = (start + low * head[tokens]).astype(jnp.bfloat16)
  return head, hidden, tokens.astype(np.int32)


def _softmax(logits):
  law = np.exp(logits - logits.max(-1, keepdims=True))
  return law / law.sum(-1, keepdims=True)


_SUM = inputs.HeadLoss(
  loss_from_stats=lambda context, stats, _: (
    jnp.sum(context * stats.log_probs),
    stats.log_probs,
  )
)


@functools.partial(jax.jit, static_argnums=0)
def _ours(mesh, head, hidden, tokens, slopes):
  """Gradients of a weighted sum of log-probs, by the pass."""
  targets = inputs.Targets(
    tokens=tokens[:, None],
    mask=jnp.ones((len(tokens), 1), bool),
    anchor=TokenStats(log_probs=jnp.zeros((len(tokens), 1))),
    context=slopes[:, None],
  )
  layout = factories.vocabulary_config(mesh, head_chunk_tokens=64)

  def total(head, hidden):
    return fused_loss.head_loss(layout, _SUM, head, hidden[:, None], targets)[0]

  return jax.grad(total, (0, 1))(head, hidden)


@jax.jit
def _plain(head, hidden, tokens, slopes):
  """The same by autodiff."""

  def total(head, hidden):
    logits = jnp.einsum(
      'nd,vd->nv',
      hidden,
      head.astype(hidden.dtype),
      preferred_element_type=jnp.float32,
    )
    law = jax.nn.log_softmax(logits)
    return jnp.sum(slopes * jnp.take_along_axis(law, tokens[:, None], 1)[:, 0])

  return jax.grad(total, (0, 1))(head, hidden)


def _errors(head, hidden, tokens, slopes, dtype, mesh=None):
  """Relative errors of (dW, dX) of the pass, and of plain autodiff."""
  hidden = hidden.astype(dtype)
  x = hidden.astype(np.float64)
  d_logits = -_softmax(x @ head.T)
  d_logits[np.arange(len(tokens)), tokens] += 1
  d_logits *= slopes[:, None]
  expected = d_logits.T @ x, d_logits @ head
  case = head.astype(np.float32), hidden, tokens, slopes
  return [
    [
      factories.relative_distance(np.asarray(got, np.float64), want)
      for got, want in zip(gradients, expected, strict=True)
    ]
    for gradients in (_ours(mesh, *case), _plain(*case))
  ]


_PROBABILITIES = (0.3, 0.5, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999)


@pytest.mark.parametrize('probability', _PROBABILITIES)
@pytest.mark.parametrize('slope', [1.0, 0.37])
def test_the_gradient_of_confident_tokens_in_bfloat16(probability, slope):
  """Not above that of plain bf16 autodiff by half, as -a p + a would be."""
  case = _sure(probability)
  slopes = np.full(128, slope, np.float32)
  ours, plain = _errors(*case, slopes, jnp.bfloat16)
  assert ours[0] <= 1.5 * plain[0]
  assert ours[1] <= 1.5 * plain[1]


@pytest.mark.parametrize('probability', _PROBABILITIES)
def test_the_gradient_of_confident_tokens_in_float32(probability):
  """1 - p is a sum of what is small, and not a difference."""
  case = _sure(probability)
  ours, _ = _errors(*case, np.ones(128, np.float32), jnp.float32)
  assert max(ours) <= 2e-6


@pytest.mark.parametrize('shards', [1, 4])
def test_the_gradient_of_a_mixture_in_bfloat16(shards):
  """As a trained model samples: most tokens sure, signs by response."""
  rng = np.random.default_rng(1)
  sure = 1 - 10 ** -rng.uniform(2, 5, 256)
  probabilities = np.where(
    rng.random(256) < 0.8, sure, rng.uniform(0.05, 0.95, 256)
  )
  slopes = np.repeat(rng.choice([-1.0, 1.0], 8), 32).astype(np.float32)
  mesh = parallel.make_mesh(1, 1, shards, jax.devices()[:shards])
  case = _confident(probabilities)
  ours, plain = _errors(*case, slopes, jnp.bfloat16, mesh)
  assert ours[0] <= 1.5 * plain[0]
  assert ours[1] <= 1.5 * plain[1]
