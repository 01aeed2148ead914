"""Where answers are found, in honest completions and in others."""

import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.rewards.answers import extraction


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
    ('boxed', r'\boxed{1} then \boxed 2 {3}', '2'),
    ('boxed', r'They are $\boxed{3}$ and $\boxed{8}$.', '3, 8'),
    ('boxed', r'\boxed{} \boxed{4} \boxed{ }', '4'),
    ('boxed', r'\boxed{1 + \boxed{2}}', r'1 + \boxed{2}'),
    ('boxed', r'\boxed{7', None),
    ('boxed', r'\boxed', None),
    ('boxed', '7', None),
    ('boxed', r'in \boxed form', None),
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
    ('answer_line', 'answer: 7', '7'),
    ('answer_line', '**ANSWER** :\n\n$$\n7\n$$', '7'),
    ('answer_line', 'Answer: 7\nAnswer:', '7'),
    ('answer_line', '**答案**\uff1a7', '7'),
    ('answer_line', 'the answer 7', None),
    ('last_number', 'The answer is 14.', '14'),
    ('last_number', 'It costs $1,234.50, not 3 cents', '3'),
    ('last_number', 'so it is $1,234.50.', '$1,234.50'),
    ('last_number', 'minus seven is -7', '-7'),
    ('last_number', '10 - 7', '7'),
    ('last_number', 'thus 1 1/2 cups', '1 1/2'),
    ('last_number', 'thus 3/4', '3/4'),
    ('last_number', 'about 20% of H2O', '20%'),
    ('last_number', r'is 3 \times 10^{5} m', r'3 \times 10^{5}'),
    ('last_number', 'no number', None),
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
  pieces = [] if answer is None else answer.split(', ')
  assert all(piece in text for piece in pieces)


@given(st.text(alphabet='ab{}', max_size=20))
def test_what_is_balanced_comes_back_whole(inner):
  depth, lowest = 0, 0
  for char in inner:
    depth += {'{': 1, '}': -1}.get(char, 0)
    lowest = min(lowest, depth)
  boxed = extraction.last_boxed(f'\\boxed{{{inner}}}')
  if depth == 0 and lowest == 0:
    assert boxed == (inner or None)  # An empty box is none.
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
    'answer:' * 150_000,
    '1,' * 500_000,
    '1 1/' * 250_000,
    '\\boxed{1}, ' * 90_000,
    '<think>' * 150_000,
  ],
)
def test_a_megabyte_of_malice_takes_no_time(text):
  start = time.process_time()
  for extractor in extraction.EXTRACTORS.values():
    extractor(text)
  extraction.outside_thoughts(text)
  assert time.process_time() - start < 3.0  # Quadratic: minutes.


def test_what_follows_a_thought_is_said():
  said = extraction.outside_thoughts
  assert said('<think>a</think>b') == 'b'
  assert said('a</think>b</think>c') == 'c'
  assert said('b<think>a') == 'b'
  assert said('<thinking>a</thinking>[THINK]b[/THINK]c') == 'c'
  assert said('no thought') == 'no thought'


def test_a_config_names_extractors_in_order():
  assert extraction.parse_extraction('boxed,hashes') == ('boxed', 'hashes')
  assert extraction.parse_extraction('whole') == ('whole',)


@pytest.mark.parametrize('text', ['', 'boxd', 'boxed, ', 'boxed hashes'])
def test_unknown_extractors_are_refused(text):
  with pytest.raises(ValueError, match=r'rewards\.extraction: unknown'):
    extraction.parse_extraction(text)
