import jax.numpy as jnp
import pytest

from dppo_jax.lm_head.inputs import HeadLoss
from dppo_jax.ops.divergences import tv_integrand


def _loss(**fields):
  return HeadLoss(
    loss_from_stats=lambda context, current, movement: (jnp.zeros(()), None),
    **fields,
  )


@pytest.mark.parametrize(
  ('fields', 'anchor_logits', 'context'),
  [
    ({}, False, False),
    (dict(integrand=tv_integrand), True, False),
    (dict(centering='topk'), False, True),
    (dict(centering='exact'), True, True),
    (dict(meter_fn=lambda *_: {}), False, True),
  ],
)
def test_a_loss_says_what_it_reads(fields, anchor_logits, context):
  loss = _loss(**fields)
  assert loss.needs_anchor_logits == anchor_logits
  assert loss.reads_context == context
