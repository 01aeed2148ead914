"""A verdict is bounded whatever a verifier does, and counted."""

import numpy as np
import pytest

from dppo_jax.rewards import verdicts
from dppo_jax.rewards.verdicts import Verdict, verify_safely


def _returning(value):
  return lambda completion, example, truncated: value


@pytest.mark.parametrize(
  ('value', 'reason'),
  [
    ((float('nan'), 'a'), 'error: reward nan is not finite'),
    ((float('inf'), 'a'), 'error: reward inf is not finite'),
    (('1', 'a'), 'error: reward of type str'),
    ((None, 'a'), 'error: reward of type NoneType'),
    (1.0, 'error: TypeError: '),
    ((1.0,), 'error: ValueError: '),
  ],
)
def test_what_is_no_verdict_is_an_error(value, reason):
  verdict = verify_safely(_returning(value), 'a', {}, False)
  assert verdict.reward == 0.0
  assert verdict.reason.startswith(reason)


def test_numbers_become_floats_and_reasons_short_text():
  value = (np.float32(0.5), 'x' * 1000)
  verdict = verify_safely(_returning(value), 'a', {}, False)
  assert type(verdict.reward) is float
  assert verdict == (0.5, 'x' * 200)


def _raising(error):
  def broken(completion, example, truncated):
    raise error

  return broken


def test_an_exception_is_named_and_cut():
  verdict = verify_safely(_raising(ValueError('x' * 1000)), 'a', {}, False)
  assert verdict.reward == 0.0
  assert verdict.reason.startswith('error: ValueError: xxx')
  assert len(verdict.reason) == 200


def test_too_little_memory_is_a_reason_of_its_own():
  verdict = verify_safely(_raising(MemoryError()), 'a', {}, False)
  assert verdict == (0.0, 'memory')


def test_failures_are_counted_by_kind():
  reasons = [
    'right',
    'timeout',
    'crashed',
    'timeout',
    'memory',
    'error: TypeError: x',
  ]
  counts = verdicts.failure_counts([Verdict(0.0, r) for r in reasons])
  assert counts == {'errors': 1, 'timeouts': 2, 'crashes': 2}


def test_every_reason_is_counted_and_the_shares_sum_to_one():
  reasons = ['right', 'right', 'memory', 'error: x', 'mine']
  shares = verdicts.reason_shares([Verdict(0.0, r) for r in reasons])
  assert set(shares) == {*verdicts.REASONS, 'error', 'other'}
  assert sum(shares.values()) == pytest.approx(1.0)
  told = {name: share for name, share in shares.items() if share}
  assert told == {'right': 0.4, 'memory': 0.2, 'error': 0.2, 'other': 0.2}


def test_the_verdicts_of_this_package_have_known_reasons():
  found = [v for v in vars(verdicts).values() if isinstance(v, Verdict)]
  assert sorted(v.reason for v in found) == sorted(verdicts.REASONS)


def test_failures_are_described_with_their_commonest_reason():
  found = [verdicts.RIGHT, verdicts.TIMEOUT, verdicts.TIMEOUT, verdicts.CRASHED]
  share, reason = verdicts.failure_share(found), verdicts.common_failure(found)
  assert (share, reason) == (0.75, 'timeout')
  text = verdicts.describe_failure(share, reason)
  assert 'failed on 75% of the completions, most often with: timeout (' in text
  assert verdicts.common_failure([verdicts.RIGHT]) == ''
  assert 'most often' not in verdicts.describe_failure(1.0, '')
