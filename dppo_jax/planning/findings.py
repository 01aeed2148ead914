"""Checks of the doctor: facts of a run -> findings, each with its fix.

Every function is pure, so that each failure can be tested directly.
"""

from collections.abc import Sequence
import dataclasses
from typing import Literal

import numpy as np

from dppo_jax.ops.divergences import DIVERGENCES, of_the_sampled_token
from dppo_jax.planning.memory import show_bytes
from dppo_jax.rewards.verdicts import (
  Verdict,
  common_failure,
  describe_failure,
  failure_share,
)
from dppo_jax.runtime.config.experiment import Experiment
from dppo_jax.runtime.rollouts import integrity

OK, WARNING, ERROR = 'ok', 'warning', 'error'

# Relative error of an f32 product over 512 terms: measured at 1e-7 to 4e-7.
_F32_PRODUCT = 5e-6
_MAX_TRUNCATED = 0.5
_MAX_EQUAL = 0.8  # Of the groups.
_MIN_MASS = 0.9  # Of the K recorded tokens.
_FULL = 0.9  # Of the device's memory.
# Share of a sequence above which repeated prompts are worth a warning.
_LONG_PROMPT = 0.25


@dataclasses.dataclass(frozen=True)
class Finding:
  """Result of one check.

  Attributes:
    level: 'error' if the run should not be started.
    check: name of the check.
    cause: observation.
    fix: change to make; '' if none is needed.
  """

  level: Literal['ok', 'warning', 'error']
  check: str
  cause: str
  fix: str = ''

  def __str__(self) -> str:
    mark = {OK: 'ok     ', WARNING: 'WARNING', ERROR: 'ERROR  '}[self.level]
    lines = f'{mark} {self.check}: {self.cause}'
    return f'{lines}\n        Fix: {self.fix}' if self.fix else lines


def check_distribution(experiment: Experiment) -> list[Finding]:
  """Findings on whether trainer and sampler use the same distribution."""
  sampled, loss = experiment.sampling, experiment.loss
  found = [
    _check_temperature(
      sampled.temperature, sampled.temperature_slip, loss.temperature
    )
  ]
  if sampled.top_p == 1.0 and not sampled.greedy:
    support = sampled.support
    of = '1 in training'
    if support is not None:
      of = (
        f'{support.top_p:g} of the {support.top_k} likeliest tokens, which are'
        ' recorded and replayed'
      )
    found.append(Finding(OK, 'top-p', of))
  else:
    found.append(
      Finding(
        ERROR,
        'top-p',
        f'training samples with top_p={sampled.top_p:g}'
        f'{", greedily" if sampled.greedy else ""}',
        'sample from the full softmax, top_p=1; else the sampling distribution'
        ' is not the one that the trainer compares.',
      )
    )
  return found


def _check_temperature(sampled: float, slip: float, trained: float) -> Finding:
  check = 'temperature'
  text = f'sampled at {sampled:g}, trained at {trained:g}'
  if sampled != trained * (1.0 + slip):
    return Finding(
      ERROR,
      check,
      text,
      'give both sampling.temperature; pi / mu would be wrong everywhere.',
    )
  if slip:
    return Finding(
      WARNING,
      check,
      f'{text}, by sampling.temperature_slip={slip:g}',
      'a mismatch made on purpose; set it to 0 for none.',
    )
  return Finding(OK, check, f'{sampled:g} on both sides')


def check_recorded(experiment: Experiment, mass: float | None) -> Finding:
  """Finding on whether the stats that the divergence reads are recorded.

  Args:
    experiment: the run.
    mass: mean probability of the recorded tokens; None if there are none.
  """
  check, name = 'recorded K', experiment.loss.divergence
  wanted = experiment.sampling.top_k
  row = DIVERGENCES[name]
  if row.records == 'top_k' and (not wanted or mass is None):
    others = ' or '.join(of_the_sampled_token(row.unit))
    return Finding(
      ERROR,
      check,
      f'{name} reads the top-K log-probs, and none are recorded',
      f'set sampling.top_k=20, or trust_region.divergence={others}.',
    )
  if wanted and mass is None:
    return Finding(
      ERROR,
      check,
      f'sampling.top_k={wanted}, and the rollout has none',
      'set sampling.top_k=0 if nothing reads them.',
    )
  if mass is None:
    return Finding(OK, check, f'0; {name} needs none')
  if row.records == 'top_k' and mass < _MIN_MASS:
    return Finding(
      WARNING,
      check,
      f'the {wanted} recorded tokens hold {mass:.1%} of the probability, so'
      f' {name} is far below the exact divergence',
      'raise sampling.top_k, or wait: training sharpens the policy.',
    )
  return Finding(OK, check, f'{wanted}, holding {mass:.1%} of the probability')


def check_agreement(
  experiment: Experiment, sampled: np.ndarray, trained: np.ndarray
) -> Finding:
  """Finding on the difference of the sampler's and the trainer's log-probs.

  Args:
    experiment: the run.
    sampled: f32 [n], of completion tokens, recorded by the sampler.
    trained: f32 [n], of the same parameters, by the trainer.
  """
  check = 'sampler against trainer'
  if not sampled.size:
    return Finding(ERROR, check, 'no token was sampled', 'see above.')
  precision, dtype = experiment.sampling.precision, experiment.model.dtype
  slip = experiment.sampling.temperature_slip
  exact = precision == dtype == 'float32' and not slip
  limit = integrity.EXACT if exact else integrity.ROUNDED
  off = float(np.mean(np.abs(sampled - trained)))
  text = (
    f'log-probs differ by {off:.2g} nats on average ({sampled.size:,} tokens)'
  )
  if np.isfinite(off) and off <= limit:
    return Finding(OK, check, text)
  return Finding(
    ERROR if exact or not np.isfinite(off) else WARNING,
    check,
    f'{text}; rounding explains {limit:g} with {dtype} and a {precision}'
    ' sampler',
    'compare at sampling.precision=float32 and model.dtype=float32: a'
    ' difference there is not rounding but another distribution (temperature,'
    ' weights).',
  )


def check_lengths(
  truncated: np.ndarray, limit: int, *, warm_start: bool
) -> Finding:
  """Finding on the share of truncated completions.

  Args:
    truncated: bool [B].
    limit: R, tokens.
    warm_start: whether an SFT warm start follows, which will change this.
  """
  check, share = 'truncation', float(np.mean(truncated))
  text = f'{share:.0%} of {truncated.size} completions reach {limit:,} tokens'
  if share <= _MAX_TRUNCATED:
    return Finding(OK, check, text)
  return Finding(
    ERROR if share == 1 and not warm_start else WARNING,
    check,
    text + (', before the warm start' if warm_start else ''),
    'raise sampling.max_completion_length, or check that the chat template is'
    " the model's and its end token is listed; truncated completions earn"
    ' nothing.',
  )


def check_products(device: str, error: float, dtype: str) -> Finding:
  """Finding on whether f32 matrix products have f32 precision on a device.

  Args:
    device: its name.
    error: relative RMS error of such a product against f64.
    dtype: compute dtype of the model.
  """
  check = 'float32 products'
  text = f'off by {error:.1g} of f64 on {device}'
  if error <= _F32_PRODUCT:
    more = '' if dtype == 'float32' else f'; the model computes in {dtype}'
    return Finding(OK, check, f'{text}: full float32 precision{more}')
  return Finding(
    ERROR if dtype == 'float32' else WARNING,
    check,
    f'{text}; float32 explains {_F32_PRODUCT:g}, TF32 about 3e-4, bfloat16'
    ' about 2e-3',
    'find the setting that lowers it (XLA_FLAGS, NVIDIA_TF32_OVERRIDE), or'
    ' claim no more than this precision for results on this device.',
  )


def check_verifier(verdicts: Sequence[Verdict]) -> Finding:
  """Finding on the share of completions that the verifier failed on.

  Args:
    verdicts: B, at least one.
  """
  check, share = 'verifier', failure_share(verdicts)
  if not share:
    return Finding(OK, check, f'it judged all of {len(verdicts)} completions')
  text, _, hint = describe_failure(share, common_failure(verdicts)).partition(
    '. Look at '
  )
  level = ERROR if share == 1.0 else WARNING
  return Finding(level, check, text, f'look at {hint}')


def check_rewards(rewards: np.ndarray, *, warm_start: bool) -> Finding:
  """Finding on the share of groups without gradient.

  Args:
    rewards: f32 [N, G].
    warm_start: see `check_lengths`.
  """
  check = 'zero-variance groups'
  equal = rewards.max(axis=1) == rewards.min(axis=1)
  share = float(np.mean(equal))
  text = f'{share:.0%} of {equal.size} groups; mean reward {rewards.mean():.3g}'
  if share <= _MAX_EQUAL:
    return Finding(OK, check, text)
  low = rewards.mean() < 0.5
  return Finding(
    ERROR if share == 1 and not warm_start else WARNING,
    check,
    text + (', before the warm start' if warm_start else ''),
    (
      'too hard, or right answers are not extracted: check completions and'
      ' rewards.extraction'
      if low
      else 'too easy'
    )
    + '; select problems with dppo select_problems, raise'
    ' data.group_size, or set data.dynamic_sampling=resample.',
  )


def check_microbatch(experiment: Experiment) -> Finding:
  """Finding on prompt sharing within a group in training."""
  check, data = 'microbatch', experiment.data
  shared, size = experiment.loss.shared_rows, data.group_size
  if shared == size:
    return Finding(OK, check, f'full groups of {size}; each prompt is run once')
  columns = data.max_prompt_length + experiment.sampling.max_completion_length
  long = data.max_prompt_length / columns
  text = (
    f'{shared} of {size} completions share a prompt, {long:.0%} of a sequence'
  )
  if long < _LONG_PROMPT:
    return Finding(OK, check, text)
  return Finding(
    WARNING,
    check,
    f'{text}; each prompt is run {size // shared} times',
    'choose learner.num_microbatches so that each device has a multiple of'
    f' data.group_size={size} sequences, and learner.share_prompt_prefix=True.',
  )


def check_memory(estimate: float, capacity: float | None) -> Finding:
  """Finding on whether the memory estimate fits a device.

  Args:
    estimate: bytes per device.
    capacity: bytes of a device; None if unknown.
  """
  check = 'memory'
  if capacity is None:
    return Finding(
      OK, check, f'{show_bytes(estimate)} estimated; device unknown'
    )
  text = (
    f'{show_bytes(estimate)} estimated of {show_bytes(capacity)} per device'
  )
  if estimate <= _FULL * capacity:
    return Finding(OK, check, text)
  return Finding(
    ERROR if estimate > capacity else WARNING,
    check,
    text,
    'raise learner.num_microbatches or mesh.fsdp, set model.remat=full, lower'
    ' data.num_prompts or sampling.max_completion_length; the plan'
    ' (dppo train --dry_run) shows the largest arrays.',
  )
