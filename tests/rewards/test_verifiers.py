"""What each verifier rewards, and that none of them can break the caller."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from dppo_jax.rewards import verifiers


@pytest.mark.parametrize(
  ('name', 'completion', 'answer', 'expected'),
  [
    ('exact_match', '1 2 3', '1 2 3', (1.0, 'right')),
    ('exact_match', '1 2 3 ', '1 2 3', (0.0, 'wrong')),
    ('exact_match', '1 2', '1 2 3', (0.0, 'wrong')),
    ('exact_match', '', '1 2 3', (0.0, 'empty')),
    ('exact_match', '', '', (0.0, 'empty')),
    ('last_word', 'think 1 3 5', '5', (1.0, 'right')),
    ('last_word', 'direct 5', '5', (1.0, 'right')),
    ('last_word', '5', '5', (1.0, 'right')),
    ('last_word', 'direct 5 5 4', '5', (0.0, 'wrong')),
    ('last_word', 'direct 15', '5', (0.0, 'wrong')),
    ('last_word', ' ', '5', (0.0, 'empty')),
    ('alias_sort', '1.0 2.0', '1.0 2.0', (1.0, 'right')),
    ('alias_sort', '1.399 2.17', '1.0 2.0', (1.0, 'right')),
    ('alias_sort', '2.17 1.399', '1.0 2.0', (0.0, 'wrong')),
    ('alias_sort', '1.399', '1.0 2.0', (0.0, 'wrong')),
    ('alias_sort', '1.399 2.17 =', '1.0 2.0', (0.0, 'wrong')),
    ('alias_sort', '1. 2.0', '1.0 2.0', (0.0, 'wrong')),
    ('alias_sort', '11.0 2.0', '1.0 2.0', (0.0, 'wrong')),
    ('alias_sort', '', '1.0 2.0', (0.0, 'empty')),
    ('numeric', '0 5 7 9', '5 7 9', (1.0, 'right')),
    ('numeric', '-1.50', '-1.5', (1.0, 'right')),
    ('numeric', '5 7 8', '5 7 9', (0.0, 'wrong')),
    ('numeric', '1 +', '1', (0.0, 'unreadable')),
    ('numeric', '1e400', '1', (0.0, 'unreadable')),
    ('numeric', '٣', '3', (0.0, 'unreadable')),
    ('numeric', '1' * 65, '1', (0.0, 'unreadable')),
    ('numeric', '', '1', (0.0, 'empty')),
  ],
)
def test_verdicts(name, completion, answer, expected):
  verify = verifiers.VERIFIERS[name]
  assert verify(completion, {'answer': answer}, False) == expected


@pytest.mark.parametrize('name', verifiers.VERIFIERS)
def test_truncated_completions_are_wrong(name):
  verdict = verifiers.VERIFIERS[name]('1.0', {'answer': '1.0'}, True)
  assert verdict == (0.0, 'truncated')


@pytest.mark.parametrize('name', verifiers.VERIFIERS)
@given(completion=st.text(max_size=80))
def test_any_text_gets_a_bounded_verdict(name, completion):
  verify = verifiers.VERIFIERS[name]
  reward, reason = verify(completion, {'answer': '1.0 2.0'}, False)
  assert reward in (0.0, 1.0)
  assert reason in ('right', 'wrong', 'empty', 'unreadable')


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
  verdict = verifiers.verify_safely(_returning(value), 'a', {}, False)
  assert verdict.reward == 0.0
  assert verdict.reason.startswith(reason)


def test_numbers_become_floats_and_reasons_short_text():
  value = (np.float32(0.5), 'x' * 1000)
  verdict = verifiers.verify_safely(_returning(value), 'a', {}, False)
  assert type(verdict.reward) is float
  assert verdict == (0.5, 'x' * 200)


def test_an_exception_is_named_and_cut():
  def broken(completion, example, truncated):
    raise ValueError('x' * 1000)

  verdict = verifiers.verify_safely(broken, 'a', {}, False)
  assert verdict.reward == 0.0
  assert verdict.reason.startswith('error: ValueError: xxx')
  assert len(verdict.reason) == 200


def test_failures_are_counted_by_kind():
  reasons = ['right', 'timeout', 'crashed', 'timeout', 'error: TypeError: x']
  verdicts = [verifiers.Verdict(0.0, reason) for reason in reasons]
  counts = verifiers.failure_counts(verdicts)
  assert counts == {'errors': 1, 'timeouts': 2, 'crashes': 1}


def test_the_modules_of_a_worker_are_light():
  code = (
    'import sys, dppo_jax.rewards.worker\n'
    'print([m for m in ("jax", "flax", "numpy") if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    env={'PYTHONPATH': ':'.join(sys.path)},
  )
  assert done.stdout.strip() == '[]'
