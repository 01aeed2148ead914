"""Records that the tests of the ledger start from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.analysis.ledger import replay
from dppo_jax.base import Rollout, TokenStats
from dppo_jax.learner.loss import policy_loss
from dppo_jax.learner.loss_config import LossConfig
from dppo_jax.learner.train_step import StepRecord
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.runtime.ledger import record as record_lib
from dppo_jax.runtime.storage.metrics_log import Sample
from tests.support import factories

WIDTH, LENGTH, GROUP, NUM_GROUPS = 5, 6, 4, 6
ROWS = GROUP * NUM_GROUPS


class Words:
  """Tokens are written as letters; the end and the padding as nothing."""

  vocab_size = factories.VOCAB_SIZE
  pad_id = factories.PAD_ID
  eos_ids = (factories.EOS_ID,)

  def encode(self, text):
    return [ord(word) - ord('a') for word in text.split()]

  def decode(self, ids):
    kept = [i for i in ids if i not in (self.pad_id, *self.eos_ids)]
    return ' '.join(chr(ord('a') + i) for i in kept)


def section(loss: LossConfig) -> dict:
  """The config section of a loss."""
  names = ('rule', 'divergence', 'anchor', 'top_k_set')
  axes = {name: getattr(loss, name) for name in names}
  return axes | vars(loss.bounds)


def loss_config(**overrides) -> LossConfig:
  """Overrides of the loss or of its bounds."""
  fields = {f.name for f in dataclasses.fields(replay.Thresholds)}
  bounds = {k: v for k, v in overrides.items() if k in fields}
  rest = {k: v for k, v in overrides.items() if k not in fields}
  return factories.loss_config(
    prompt_length=WIDTH, bounds=factories.bounds(**bounds), **rest
  )


def rule(name='rule', **overrides) -> replay.Rule:
  return replay.Rule(name, loss_config(**overrides))


@functools.cache
def batch(top_k=5, seed=0):
  """Of a sampler; the recomputed policy differs from it a little."""
  made = factories.make_batch(
    NUM_GROUPS, GROUP, WIDTH, LENGTH, top_k=top_k, seed=seed
  )
  rng = np.random.default_rng(seed)

  def jitter(values):
    noise = rng.uniform(-0.3, 0.0, values.shape).astype(np.float32)
    mask = made.completion_mask.reshape(
      made.completion_mask.shape + (1,) * (values.ndim - 2)
    )
    return np.where(mask, values + noise, 0).astype(np.float32)

  mu = dataclasses.replace(
    made.rollout,
    entropy=rng.uniform(0, 2, made.tokens.shape).astype(np.float32),
  )
  again = TokenStats(
    log_probs=jitter(mu.log_probs),
    top_ids=mu.top_ids,
    top_log_probs=jitter(mu.top_log_probs),
  )
  return dataclasses.replace(made, rollout=mu, recomputed=again)


@functools.cache
def _logits(top_k, seed):
  """Of a policy near the sampler, so that rules keep some and mask some."""
  made = batch(top_k, seed)
  rng = np.random.default_rng(seed + 1)
  logits = rng.normal(size=(ROWS, LENGTH, factories.VOCAB_SIZE))
  rows, columns = np.indices((ROWS, LENGTH))
  ids = np.asarray(made.rollout.top_ids)[:, WIDTH:]
  tops = np.asarray(made.rollout.top_log_probs)[:, WIDTH:]
  for k in range(top_k):
    logits[rows, columns, ids[..., k]] = tops[..., k]
  tokens = np.asarray(made.tokens)[:, WIDTH:]
  logits[rows, columns, tokens] = made.rollout.log_probs[:, WIDTH:]
  return (logits + rng.normal(size=logits.shape) * 0.5).astype(np.float32)


@functools.cache
def decide_in_training(loss: LossConfig, top_k=5, seed=0):
  """Decisions of the training loss: compiled, as in a step."""
  made = batch(top_k, seed)
  if loss.anchor == 'rollout':
    made = dataclasses.replace(made, recomputed=None)
  head = None
  if DIVERGENCES[loss.divergence].records == 'hidden':
    # The states of this policy are its logits.
    head = jnp.eye(factories.VOCAB_SIZE)
    law = np.zeros((*made.tokens.shape, factories.VOCAB_SIZE), np.float32)
    stats = made.rollout
    np.put_along_axis(law, stats.top_ids, stats.top_log_probs, -1)
    stats = dataclasses.replace(stats, hidden=law)
    made = dataclasses.replace(made, rollout=stats)
  policy = factories.table_policy(WIDTH)
  decide = jax.jit(
    functools.partial(
      policy_loss,
      policy,
      factories.vocabulary_config(),
      loss,
      with_top_k=True,
    )
  )
  _, decisions = decide(
    jnp.asarray(_logits(top_k, seed)),
    jax.tree.map(jnp.asarray, made),
    jnp.ones((ROWS, LENGTH)),
    (head, None),
  )
  return made, jax.device_get(decisions)


def trained(step=7, top_k=5, seed=0, **overrides) -> record_lib.Record:
  """What a step under a rule would record."""
  loss = loss_config(**overrides)
  made, decisions = decide_in_training(loss, top_k, seed)
  rollout = Rollout(
    tokens=made.tokens,
    token_mask=made.token_mask,
    completion_mask=made.completion_mask,
    stats=made.rollout,
    group_id=np.repeat(np.arange(NUM_GROUPS, dtype=np.int32), GROUP),
    example_id=np.repeat(np.arange(40, 40 + NUM_GROUPS), GROUP).astype('i4'),
    truncated=np.zeros(ROWS, bool),
  )
  samples = [
    Sample(f'prompt {i // GROUP}', f'completion {i}', i % 2, f'reason {i % 3}')
    for i in range(ROWS)
  ]
  update = np.repeat(np.arange(2, dtype=np.int32), ROWS // 2)
  return record_lib.make_record(
    step,
    section(loss),
    Words(),
    rollout,
    made,
    StepRecord(decisions, update),
    samples,
  )


def hand_made(**changes) -> record_lib.Record:
  """Two completions of 4 and 2 tokens under binary TV with delta .25.

  mu .92 .6 .05 .3 | .92 .005, pi .52 .5 .04 .6 | .99 .305: the divergence is
  .4 .1 .01 .3 | .07 .3 and A is -1 | +1, so away are tokens 0, 1, 2 | 4, 5 and
  masked 0 | 5.
  """
  mu = np.array([0.92, 0.6, 0.05, 0.3, 0.92, 0.005])
  pi = np.array([0.52, 0.5, 0.04, 0.6, 0.99, 0.305])
  loss = loss_config(divergence='binary_tv', delta_low=0.25, delta_high=0.25)
  record = record_lib.Record(
    trust_region=section(loss),
    num_columns=5,
    vocab_size=factories.VOCAB_SIZE,
    pieces={1: record_lib.END, 2: 'c', 3: 'd', 4: 'e'},
    prompts=['p q', 'r s'],
    completions=['c d c', 'e'],
    reasons=['wrong', 'right'],
    step=np.full(2, 7, np.int32),
    example_id=np.array([12, 13], np.int32),
    group_id=np.array([0, 1], np.int32),
    reward=np.array([0, 1], np.float32),
    update=np.array([1, 0], np.int32),
    row=np.array([0, 0, 0, 0, 1, 1], np.int32),
    position=np.array([0, 1, 2, 3, 0, 1], np.int32),
    token=np.array([2, 3, 2, 1, 4, 2], np.int32),
    advantages=np.array([-1, -1, -1, -1, 1, 1], np.float32),
    rollout_log_probs=np.log(mu).astype(np.float32),
    log_probs=np.log(pi).astype(np.float32),
    divergence=np.abs(mu - pi).astype(np.float32),
    keep=np.array([0, 1, 1, 1, 1, 0], np.float32),
  )
  return dataclasses.replace(record, **changes)


def hand_made_rule(**overrides) -> replay.Rule:
  options = dict(divergence='binary_tv', delta_low=0.25, delta_high=0.25)
  return rule('recorded', **{**options, **overrides})
