"""Form is all or nothing."""

import pytest

from dppo_jax.rewards import formats
from dppo_jax.rewards.verdicts import MALFORMED, RIGHT


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('<think>a</think><answer>b</answer>', RIGHT),
    (' <think>\na\n</think>\n<answer> b </answer>\n', RIGHT),
    ('<think></think><answer>b</answer>', MALFORMED),
    ('<think>a</think><answer> </answer>', MALFORMED),
    ('x<think>a</think><answer>b</answer>', MALFORMED),
    ('<think>a</think>x<answer>b</answer>', MALFORMED),
    ('<think>a</think><answer>b</answer>x', MALFORMED),
    ('<think>a<answer>b</answer></think>', MALFORMED),
    ('<answer>b</answer><think>a</think>', MALFORMED),
    ('<think>a</think><think>a</think><answer>b</answer>', MALFORMED),
    ('<think>a</think><answer>b', MALFORMED),
  ],
)
def test_think_answer(text, expected):
  assert formats.think_answer(text, {}) == expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('a</think>b', RIGHT),
    ('<think>a</think>b', RIGHT),
    ('a</think> ', MALFORMED),
    ('</think>b', MALFORMED),
    ('a b', MALFORMED),
    ('a</think>b</think>', MALFORMED),
    ('a<think></think>b', MALFORMED),
  ],
)
def test_thought(text, expected):
  assert formats.thought(text, {}) == expected


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    (r'so \boxed{7}.', RIGHT),
    (r'\boxed{\frac{1}{2}}', RIGHT),
    (r'\boxed{}', MALFORMED),
    (r'\boxed{7', MALFORMED),
    (r'\boxed{7} \boxed{7}', MALFORMED),
    ('7', MALFORMED),
  ],
)
def test_one_boxed(text, expected):
  assert formats.one_boxed(text, {}) == expected
