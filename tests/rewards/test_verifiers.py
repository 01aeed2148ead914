"""What each verifier rewards, and that none of them can break the caller."""

import decimal
import json
import pathlib
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dppo_jax.rewards import verifiers
from dppo_jax.rewards.answers import cost
from dppo_jax.rewards.pool import VerifierPool
from dppo_jax.rewards.verdicts import REASONS, RIGHT, verify_safely
from tests.support import answer_pairs
from tests.support.examples import examples

_ANYWHERE = [
  name for name, row in verifiers.VERIFIERS.items() if not row.imports
]


def _verify(name, completion, example, extraction=('whole',), truncated=False):
  verifier = verifiers.make_verifier(verifiers.VERIFIERS[name], extraction)
  return verify_safely(verifier, completion, example, truncated)


@pytest.mark.parametrize(
  ('name', 'completion', 'answer', 'expected'),
  [
    ('exact_match', '1 2 3', '1 2 3', (1.0, 'right')),
    ('exact_match', '1 2 3 ', '1 2 3', (0.0, 'wrong')),
    ('exact_match', '1 2', '1 2 3', (0.0, 'wrong')),
    ('exact_match', '', '1 2 3', (0.0, 'empty')),
    ('exact_match', '', '', (0.0, 'empty')),
    ('exact_match', '7', 'Seven.\n#### 7', (1.0, 'right')),
    ('exact_match', '1', '1.0', (1.0, 'right')),
    ('exact_match', '1.50', '1.5', (1.0, 'right')),
    ('exact_match', '10', '1', (0.0, 'wrong')),
    ('exact_match', '01', '1', (0.0, 'wrong')),
    ('exact_match', '1.05', '1.5', (0.0, 'wrong')),
    ('last_word', 'think 1 3 5', '5', (1.0, 'right')),
    ('last_word', 'direct 5', '5', (1.0, 'right')),
    ('last_word', '5', '5', (1.0, 'right')),
    ('last_word', 'direct 5 5 4', '5', (0.0, 'wrong')),
    ('last_word', 'direct 15', '5', (0.0, 'wrong')),
    ('last_word', ' ', '5', (0.0, 'empty')),
    ('none', '5', '5', (0.0, 'unjudged')),
    ('none', 'anything', '', (0.0, 'unjudged')),
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
    ('numeric', '$1,500.00', '1500', (1.0, 'right')),
    ('numeric', '20%', '1/5', (1.0, 'right')),
    ('numeric', '5 7 8', '5 7 9', (0.0, 'wrong')),
    ('numeric', '5 7', '57', (0.0, 'malformed')),
    ('numeric', '57', '5 7', (0.0, 'wrong')),
    ('numeric', '57 clips', '57', (1.0, 'right')),
    ('numeric', r'57\text{ dollars}', '57', (1.0, 'right')),
    ('numeric', '**57**', '57', (1.0, 'right')),
    ('numeric', '5 700', '5700', (1.0, 'right')),
    ('numeric', '5', 'Tuesday', (0.0, 'wrong')),
    ('numeric', '1 +', '1', (0.0, 'malformed')),
    ('numeric', '1e400', '1', (0.0, 'malformed')),
    ('numeric', '٣', '3', (0.0, 'malformed')),
    ('numeric', '1' * 65, '1', (0.0, 'malformed')),
    ('numeric', '', '1', (0.0, 'empty')),
    ('math', '1,000', '1000', (1.0, 'right')),
    ('math', 'x^2', 'x^2', (1.0, 'right')),
    ('math', '1001', '1000', (0.0, 'wrong')),
    ('math', 'x' * 1001, '1000', (0.0, 'too_long')),
    ('math', '2^2^2', '1000', (0.0, 'malformed')),
    ('math', '$.$', '$', (0.0, 'wrong')),
    ('math', '', '$', (0.0, 'empty')),
    ('math', '{1', '1000', (0.0, 'malformed')),
    ('math', '1}{2', '1000', (0.0, 'malformed')),
    ('math', '1 or \\boxed{2}', '1000', (0.0, 'malformed')),
  ],
)
def test_verdicts(name, completion, answer, expected):
  assert _verify(name, completion, {'answer': answer}) == expected


@pytest.mark.parametrize(
  'completion',
  ['2^{10}', '2^10', '2^{2^{2^2}}', '6!', '(3!)!', 'x^{10}', 'x^{y^{z}}'],
)
def test_what_is_too_large_is_not_computed(monkeypatch, completion):
  def ask():
    raise AssertionError('sympy is asked')

  monkeypatch.setattr(verifiers, '_load', ask)
  monkeypatch.setattr(cost, 'MAX_BITS', 8.0)
  monkeypatch.setattr(cost, '_MAX_BITS_OF_LETTERS', 16.0)
  malformed = (0.0, 'malformed')
  assert _verify('math', completion, {'answer': 'x + 1000'}) == malformed
  reason = _verify('math', '2^3', {'answer': '2^2'}).reason
  assert reason == 'error: AssertionError: sympy is asked'


@pytest.mark.parametrize(
  ('completion', 'extraction', 'expected'),
  [
    (r'so \boxed{7}', ('boxed',), (1.0, 'right')),
    ('so\n#### 7', ('boxed', 'hashes'), (1.0, 'right')),
    ('<answer> 7 </answer>', ('answer_tag',), (1.0, 'right')),
    (r'#### 8 \boxed{7}', ('hashes', 'boxed'), (0.0, 'malformed')),
    ('so 7', ('boxed', 'hashes'), (0.0, 'no_answer')),
    (r'so \boxed{ }', ('boxed',), (0.0, 'no_answer')),
    (r'so \boxed{7', ('boxed',), (0.0, 'no_answer')),
    (r'<answer>$\boxed{7}$</answer>', ('answer_tag',), (1.0, 'right')),
    (r'#### \boxed{7}', ('hashes',), (1.0, 'right')),
    ('#### **7**', ('hashes',), (1.0, 'right')),
    ('The answer is 7.', ('boxed', 'last_number'), (1.0, 'right')),
    ('It is 7, not 8.', ('last_number',), (0.0, 'wrong')),
  ],
)
def test_rows_read_the_answer(completion, extraction, expected):
  example = {'answer': 'They are seven.\n#### 7'}
  assert _verify('numeric', completion, example, extraction) == expected


_THOUGHT = r'<think>so \boxed{7}</think>'


@pytest.mark.parametrize(
  ('completion', 'read_thoughts', 'expected'),
  [
    (_THOUGHT + ' It is seven.', False, 'no_answer'),
    (_THOUGHT + ' It is seven.', True, 'right'),
    (_THOUGHT + r' It is \boxed{8}.', True, 'wrong'),
    (r'<think>so \boxed{8}</think> \boxed{7}', False, 'right'),
    (r'so \boxed{8}</think> \boxed{7}', False, 'right'),
    (r'<think>so \boxed{7}', False, 'no_answer'),
    (r'<think>so \boxed{7}', True, 'right'),
    (r'[THINK]\boxed{7}[/THINK] seven', False, 'no_answer'),
    (r'\boxed{7} <think>', False, 'right'),
  ],
)
def test_thoughts_are_no_answers_unless_asked(
  completion, read_thoughts, expected
):
  verifier = verifiers.make_verifier(
    verifiers.VERIFIERS['numeric'], ('boxed',), read_thoughts=read_thoughts
  )
  assert verifier(completion, {'answer': '7'}, False).reason == expected


def test_rows_of_form_read_everything():
  text = '<think>2 + 2</think>\n<answer>4</answer>'
  assert _verify('think_answer', text, {}, ('answer_tag',)) == (1.0, 'right')


def test_the_reference_is_found_in_a_solution():
  assert verifiers.reference_answer({'answer': 'a\n#### 1,000'}) == '1,000'
  assert verifiers.reference_answer({'answer': r'so \boxed{x}.'}) == 'x'
  assert verifiers.reference_answer({'answer': 12}) == '12'


_EXAMPLE = {'answer': '1.0 2.0', 'numbers': [1, 2], 'target': 3}


@pytest.mark.parametrize('name', verifiers.VERIFIERS)
def test_truncated_completions_are_wrong(name):
  verdict = _verify(name, '1.0', _EXAMPLE, truncated=True)
  assert verdict == (0.0, 'truncated')


@pytest.mark.parametrize('name', _ANYWHERE)
@pytest.mark.parametrize('extraction', ['whole', 'boxed'])
@given(completion=st.text(max_size=80))
@examples(30)
def test_any_text_gets_a_bounded_verdict(name, extraction, completion):
  reward, reason = _verify(name, completion, _EXAMPLE, (extraction,))
  assert reward in (0.0, 1.0)
  assert reason in REASONS


@pytest.mark.parametrize('name', [*_ANYWHERE, 'math'])
@pytest.mark.parametrize(
  'completion',
  [
    '{' * 50_000 + '}' * 50_000,
    '\\boxed{' * 15_000,
    '\\boxed{' + '{' * 50_000 + '}' * 50_000 + '}',
    '<think>' * 15_000,
    '#' * 100_000,
    '(' * 100_000,
    '1^' * 50_000,
    '\\boxed{2^2^2}',
    '\ud800 \\boxed{\udfff!!}',
    '1' * 100_000,
    '%' * 100_000,
  ],
  ids=lambda text: ascii(text[:12]),
)
def test_hostile_texts_cost_their_reward_and_no_time(
  monkeypatch, name, completion
):
  def refuse(name):
    raise AssertionError(f'{name} is asked, in this process')

  monkeypatch.setattr(verifiers.importlib, 'import_module', refuse)
  for extraction in ('whole', 'boxed', 'hashes', 'answer_tag'):
    verdict = _verify(name, completion, _EXAMPLE, (extraction,))
    # One box is one box, whatever is in it.
    assert verdict.reward == 0.0 or name == 'one_boxed'
    assert verdict.reason in REASONS


def _rows():
  """(verifier, extraction, completion, reference, expected) of every pair."""
  path = pathlib.Path(__file__).parents[1] / 'testdata' / 'rewards.jsonl'
  for line in path.read_text().splitlines():
    row = json.loads(line)
    yield (
      row['verifier'],
      row['extraction'],
      row['completion'],
      row['reference'],
      row['expected'],
    )
  for pairs in answer_pairs.PAIRS.values():
    for reference, answer, expected in pairs:
      yield 'math', 'boxed', f'so \\boxed{{{answer}}}', reference, expected
  for reference, completion, expected in answer_pairs.COMPLETIONS:
    yield 'math', 'boxed, answer_line', completion, reference, expected


def _found(name, extraction, completion):
  """The answer that a row of `VERIFIERS` is asked about; '' for none."""
  asked = ['']
  row = verifiers.VERIFIERS[name]._replace(
    fn=lambda answer, example: asked.append(answer) or RIGHT
  )
  extractors = tuple(each.strip() for each in extraction.split(','))
  verifiers.make_verifier(row, extractors)(completion, {}, False)
  return asked[-1]


def test_answers_are_judged_as_a_teacher_would():
  rows = list(_rows())
  assert len(rows) > 550
  wrong = []
  for name in ('exact_match', 'numeric', 'math'):
    mine = [row for row in rows if row[0] == name]
    workers = 1 if verifiers.VERIFIERS[name].imports else 0
    with VerifierPool(name, 'whole', workers, 30.0, 4096, 60.0) as pool:
      found = pool.verify(
        [_found(*row[:3]) for row in mine],
        [{'answer': row[3]} for row in mine],
        [False] * len(mine),
      )
    wrong += [
      (*row, verdict.reason)
      for row, verdict in zip(mine, found, strict=True)
      if verdict.reward != row[4] or verdict.reason.startswith('error')
    ]
  assert not wrong


def _published_solutions():
  """(reference, end of a solution, label): 5,276 of GSM8K's test questions."""
  folder = pathlib.Path(__file__).parents[1] / 'testdata' / 'gsm8k_solutions'
  for line in (folder / 'solutions.jsonl').read_text().splitlines():
    reference, labels, *ends = json.loads(line)
    for end, label in zip(ends, labels, strict=True):
      yield reference, end, float(label)


def _number(reference):
  """Of a reference that is digits with commas, by another reader than ours."""
  return decimal.Decimal(reference.replace(',', ''))


@pytest.mark.parametrize('name', ['math', 'numeric'])
@pytest.mark.parametrize(
  ('extractor', 'form'),
  [
    ('hashes', '5 * 3 = 15\n#### {}'),
    ('boxed', 'so it is $\\boxed{{{}}}$.'),
    ('last_number', '5 * 3 = 15\nA: {}'),
  ],
)
def test_labels_of_published_gsm8k_solutions_are_agreed_with(
  name, extractor, form
):
  verifier = verifiers.make_verifier(verifiers.VERIFIERS[name], (extractor,))
  rows = list(_published_solutions())
  assert len(rows) == 5276
  assert sum(label for _, _, label in rows) == 2001
  differ = []
  for reference, end, label in rows:
    said = end if end.startswith('…') else form.format(end)
    verdict = verify_safely(verifier, said, {'answer': reference}, False)
    if verdict.reward != label:
      differ.append((reference, end, label, verdict))
  assert not differ


@pytest.mark.parametrize('name', ['math', 'numeric'])
def test_no_answer_is_paid_for_the_reference_of_another_question(name):
  verifier = verifiers.make_verifier(verifiers.VERIFIERS[name], ('hashes',))
  right = [row[:2] for row in _published_solutions() if row[2]]
  wrong = [
    (answer, reference)
    for shift in (100, 1000)
    for (reference, _), (own, answer) in zip(
      right[shift:] + right[:shift], right, strict=True
    )
    if _number(own) != _number(reference)
  ]
  assert len(wrong) > 3000
  paid = [
    pair
    for pair in wrong
    if verifier(f'#### {pair[0]}', {'answer': pair[1]}, False).reward
  ]
  assert not paid


def test_the_modules_of_a_worker_are_light():
  code = (
    'import sys, dppo_jax.rewards.worker\n'
    'heavy = ("jax", "flax", "numpy", "sympy")\n'
    'print([m for m in heavy if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    env={'PYTHONPATH': ':'.join(sys.path)},
  )
  assert done.stdout.strip() == '[]'
