"""References that nothing can meet are found, and no others."""

import json
import pathlib

import pytest

from dppo_jax.rewards import pool as pool_lib
from dppo_jax.rewards import references

_GOLD = pathlib.Path(__file__).parents[1] / 'testdata' / 'sources'


def _pool(verifier, extraction='boxed', num_workers=0):
  return pool_lib.VerifierPool(
    verifier, extraction, num_workers, 5.0, 4096, 60.0
  )


@pytest.mark.parametrize(
  ('reference', 'plain'),
  [
    ('9 (apples)', '9'),
    ('A: 18', '18'),
    (r'x: \frac{1}{2}', r'\frac{1}{2}'),
    (r'25\% (of them)', r'25\%'),
    ('(1, 2)', '(1, 2)'),
    ('10:30', '10:30'),
    ('a:b', 'a:b'),
    ('3 (mod 5)', '3 (mod 5)'),
    (r'5\text{ (apples)}', r'5\text{ (apples)}'),
    ('f(abc)', 'f(abc)'),
    ('', ''),
    ('(' * 2000, '(' * 2000),
  ],
)
def test_plain_forms(reference, plain):
  assert references.plain_form(reference) == plain


def test_a_number_reader_refuses_words():
  answers = ['7', '1,200', 'no solution', '7', 'no solution', '3/4']
  with _pool('numeric') as pool:
    found = references.find_unverifiable([{'answer': a} for a in answers], pool)
  assert found.shown == {'no solution': 'malformed'}
  assert (found.num_checked, found.num_examples) == (6, 2)
  assert found.share == pytest.approx(1 / 3)


class _Strict:
  """A pool whose verifier knows equal texts alone, and asks for a form, too."""

  def __init__(self, *names):
    self.terms = pool_lib.parse_verifier(' + '.join(names), 1)
    self.extraction = ('boxed', 'hashes')

  def verify_terms(self, completions, examples, truncated):
    assert not any(truncated)
    boxed = [f'\\boxed{{{example["answer"]}}}' for example in examples]
    right, wrong = (1.0, 'right'), (0.0, 'wrong')
    return [
      [
        pool_lib.Verdict(*(right if text == box else wrong))
        for text, box in zip(completions, boxed, strict=True)
      ]
      if term.name == 'math'
      else [pool_lib.Verdict(0.0, 'malformed')] * len(boxed)
      for term in self.terms
    ]


def test_a_reference_with_words_beside_its_number_is_found():
  rows = [{'answer': a} for a in ('9 (apples)', '8', 'A: 18')]
  found = references.find_unverifiable(rows, _Strict('math', 'one_boxed'))
  assert found.shown == {
    '9 (apples)': "'9' is wrong",
    'A: 18': "'18' is wrong",
  }
  assert (found.num_examples, found.num_checked) == (2, 3)


def test_one_term_that_accepts_is_enough():
  found = references.find_unverifiable(
    [{'answer': '8'}], _Strict('numeric', 'math')
  )
  assert found.share == 0.0


def test_verifiers_of_other_things_check_nothing():
  rows = [{'answer': '8'}, {'numbers': [1]}]
  found = references.find_unverifiable(rows, _Strict('one_boxed'))
  assert found == (0, {}, 0)
  assert found.share == 0.0
  found = references.find_unverifiable(rows, _Strict('math'))
  assert found.num_checked == 1


@pytest.mark.parametrize(
  'extraction', ['boxed', 'hashes', 'answer_tag', 'answer_line', 'whole']
)
def test_every_extractor_finds_what_is_spelled_for_it(extraction):
  with _pool('exact_match', extraction) as pool:
    rows = [{'answer': '%d of {7}'}]
    assert references.find_unverifiable(rows, pool).shown == {}


def test_workers_judge_too_and_published_answers_pass():
  lines = (_GOLD / 'math_500' / 'test.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines if line]
  with _pool('math', num_workers=1) as pool:
    found = references.find_unverifiable(rows, pool)
  assert (found.num_checked, found.shown) == (len(rows), {})
