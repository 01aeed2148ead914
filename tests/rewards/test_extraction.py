"""Where answers are found, in honest completions and in others."""

import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.rewards import extraction


@pytest.mark.parametrize(
  ('name', 'text', 'expected'),
  [
    ('whole', ' 7 ', ' 7 '),
    ('boxed', r'\boxed{7}', '7'),
    ('boxed', r'\boxed{1}, no: \boxed{2}.', '2'),
    ('boxed', r'\boxed{\frac{1}{\sqrt{2}}}', r'\frac{1}{\sqrt{2}}'),
    ('boxed', r'\boxed{\{1, 2\}}', r'\{1, 2\}'),
    ('boxed', r'\boxed{\}}', r'\}'),
    ('boxed', r'\boxed{\\}', r'\\'),
    ('boxed', r'\boxed {7}', '7'),
    ('boxed', r'\fbox{7}', '7'),
    ('boxed', r'\boxed{1} then \boxed{2', '1'),
    ('boxed', r'\boxed{1} then \boxed 2 {3}', '1'),
    ('boxed', r'\boxed{1 + \boxed{2}}', r'1 + \boxed{2}'),
    ('boxed', r'\boxed{7', None),
    ('boxed', r'\boxed', None),
    ('boxed', '7', None),
    ('hashes', 'so\n#### 1,000', '1,000'),
    ('hashes', '#### 1\n#### 2\nand so on', '2'),
    ('hashes', '####7', '7'),
    ('hashes', '### 7', None),
    ('answer_tag', 'a <answer> 7 </answer>', ' 7 '),
    ('answer_tag', '<answer>1</answer> <answer>2</answer>', '2'),
    ('answer_tag', '<answer>1</answer> <answer>2', '1'),
    ('answer_tag', '</answer><answer>', None),
    ('answer_tag', '7</answer>', None),
    ('answer_line', 'Answer: 1\nAnswer: 1/2\nthat is all', '1/2'),
    ('answer_line', '**Answer:** $\\frac12$', r'\frac12'),
    ('answer_line', 'answer: 7', None),
  ],
)
def test_answers(name, text, expected):
  assert extraction.EXTRACTORS[name](text) == expected


def test_the_first_that_finds_something_counts():
  text = r'\boxed{ } #### 7'
  assert extraction.extract(text, ('boxed', 'hashes')) == '7'
  assert extraction.extract(text, ('boxed',)) is None
  assert extraction.extract(' 7 ', ('boxed', 'whole')) == '7'


@pytest.mark.parametrize('name', extraction.EXTRACTORS)
@given(st.text(alphabet='\\boxed{}#<answer/>1 \n', max_size=60))
def test_an_answer_is_a_part_of_the_text(name, text):
  answer = extraction.EXTRACTORS[name](text)
  assert answer is None or answer in text


@given(st.text(alphabet='ab{}', max_size=20))
def test_what_is_balanced_comes_back_whole(inner):
  depth, lowest = 0, 0
  for char in inner:
    depth += {'{': 1, '}': -1}.get(char, 0)
    lowest = min(lowest, depth)
  boxed = extraction.last_boxed(f'\\boxed{{{inner}}}')
  if depth == 0 and lowest == 0:
    assert boxed == inner
  else:
    assert boxed != inner


@pytest.mark.parametrize(
  'text',
  [
    '\\boxed{' * 200_000,
    '{' * 1_000_000,
    '\\boxed{' + '{' * 500_000,
    '<answer>' * 200_000,
    '####' * 250_000,
    '\\' * 1_000_000,
  ],
)
def test_a_megabyte_of_malice_takes_no_time(text):
  start = time.process_time()
  for extractor in extraction.EXTRACTORS.values():
    extractor(text)
  assert time.process_time() - start < 3.0  # Quadratic: minutes.


def test_a_config_names_extractors_in_order():
  assert extraction.parse_extraction('boxed,hashes') == ('boxed', 'hashes')
  assert extraction.parse_extraction('whole') == ('whole',)


@pytest.mark.parametrize('text', ['', 'boxd', 'boxed, ', 'boxed hashes'])
def test_unknown_extractors_are_refused(text):
  with pytest.raises(ValueError, match=r'rewards\.extraction: unknown'):
    extraction.parse_extraction(text)
