"""Verifiers: a completion and its example to a reward and a reason.

Worker processes import this module, so it needs the standard library only.
"""

from collections.abc import Callable, Mapping, Sequence
import importlib
import re
from typing import Any, NamedTuple

from dppo_jax.rewards import countdown, extraction, formats, quantities
from dppo_jax.rewards.verdicts import (
  EMPTY,
  MALFORMED,
  NO_ANSWER,
  RIGHT,
  TOO_LONG,
  TRUNCATED,
  UNJUDGED,
  WRONG,
  Verdict,
  Verifier,
)

MAX_ANSWER_LENGTH = 1000  # Characters of an answer that sympy may see.
MAX_POWER_DEPTH = 2  # Of exponents within exponents, likewise.
# A long number in an exponent; its factorial; a power of powers of numbers.
_EXPLOSIVE = (
  re.compile(r'\^\s*\{?[^{}^]{0,16}[0-9]{5}'),
  re.compile(r'(?:[0-9]{4}|!|\))\s*!'),
  re.compile(r'[0-9]\s*\^\s*\{?\s*[0-9]+\s*\^\s*\{?\s*[0-9]'),
)

Judge = Callable[[str, Mapping[str, Any]], Verdict]


class Row(NamedTuple):
  """One row of `VERIFIERS`.

  Attributes:
    fn: (text, example) -> verdict; never sees what is cut or empty.
    reads: its text: 'answer', what `rewards.extraction` finds in the
      completion, or 'completion', all of it.
    imports: module that the judge imports and only workers may; '' where it
      also runs in the trainer's process.
  """

  fn: Judge
  reads: str
  imports: str


def exact_match(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right where it is the answer, character by character."""
  if answer == example['answer'] or answer == reference_answer(example):
    return RIGHT
  return WRONG


def last_word(completion: str, example: Mapping[str, Any]) -> Verdict:
  """Right where the last word is the answer, whatever comes before it."""
  right = completion.split()[-1:] == [example['answer']]
  return RIGHT if right else WRONG


def none(completion: str, example: Mapping[str, Any]) -> Verdict:
  """Reward 0 whatever it says: where a reward model alone rewards."""
  del completion, example
  return UNJUDGED


def alias_sort(completion: str, example: Mapping[str, Any]) -> Verdict:
  """Right where the digits are those of the answer, however spelled.

  A word 'digit.rank' is one of the spellings of its digit.
  """

  def digits(text: str) -> list[str]:
    return [
      word[0] if re.fullmatch(r'[0-9]\.[0-9]+', word) else word
      for word in text.split()
    ]

  return RIGHT if digits(completion) == digits(example['answer']) else WRONG


def reference_answer(example: Mapping[str, Any]) -> str:
  """The answer of an example, also where its 'answer' is a whole solution."""
  text = str(example['answer'])
  return extraction.extract(text, ('hashes', 'boxed', 'whole')) or ''


def numeric(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right where both are the same number, exactly; see `read_number`."""
  number = quantities.read_number(answer)
  if number is None:
    return MALFORMED
  reference = quantities.read_number(reference_answer(example))
  same = reference is not None and quantities.same_number(number, reference)
  return RIGHT if same else WRONG


def math(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right where both mean the same to math-verify.

  Equal texts and equal numbers, and unequal whole numbers, are settled
  without it: that is nearly all of GSM8K.
  """
  reference = reference_answer(example)
  if answer == reference:
    return RIGHT
  number = quantities.read_number(answer)
  expected = quantities.read_number(reference)
  if number is not None and expected is not None:
    if quantities.same_number(number, expected):
      return RIGHT
    if number.value.denominator == expected.value.denominator == 1:
      return WRONG
  if len(answer) > MAX_ANSWER_LENGTH:
    return TOO_LONG
  if not _is_tame(answer):
    return MALFORMED
  module: Any = importlib.import_module(VERIFIERS['math'].imports)
  return RIGHT if module.equivalent(answer, reference) else WRONG


def _is_tame(answer: str) -> bool:
  r"""Whether an answer is one formula and writes no astronomic number.

  The limits of a worker stop whatever slips through, at their price each time:
  this turns away what is cheap to write and dear to compute, `9^{9^{9^9}}`,
  `2^{99999}`, `99999!`, and a second `\boxed` that hedges the first.
  """
  if '\\boxed' in answer or any(mark.search(answer) for mark in _EXPLOSIVE):
    return False
  escaped = False
  exponents: list[bool] = []  # For each open brace: whether of an exponent.
  for before, char in zip(' ' + answer, answer, strict=False):
    if escaped or char == '\\':
      escaped = not escaped
    elif char == '{':
      exponents.append(before == '^')
      if sum(exponents) > MAX_POWER_DEPTH:
        return False
    elif char == '}':
      if not exponents:
        return False
      exponents.pop()
  return not exponents


VERIFIERS: dict[str, Row] = {
  'exact_match': Row(exact_match, 'answer', ''),
  'numeric': Row(numeric, 'answer', ''),
  'math': Row(math, 'answer', 'dppo_jax.rewards.equivalence'),
  'countdown': Row(countdown.countdown, 'answer', ''),
  'countdown_subset': Row(countdown.countdown_subset, 'answer', ''),
  'last_word': Row(last_word, 'completion', ''),
  'alias_sort': Row(alias_sort, 'completion', ''),
  'think_answer': Row(formats.think_answer, 'completion', ''),
  'thought': Row(formats.thought, 'completion', ''),
  'one_boxed': Row(formats.one_boxed, 'completion', ''),
  'none': Row(none, 'completion', ''),
}


def make_verifier(row: Row, extractors: Sequence[str]) -> Verifier:
  """A verifier of whole completions.

  Args:
    row: of `VERIFIERS`.
    extractors: keys of `EXTRACTORS`, in the order they are tried.

  Returns:
    (completion, example, truncated) -> verdict.
  """
  # The whole completion is judged as it is, its spaces too.
  as_it_is = row.reads == 'completion' or tuple(extractors) == ('whole',)

  def verify(
    completion: str, example: Mapping[str, Any], truncated: bool
  ) -> Verdict:
    if truncated:
      return TRUNCATED
    if not completion.strip():
      return EMPTY
    if as_it_is:
      return row.fn(completion, example)
    answer = extraction.extract(completion, extractors)
    return NO_ANSWER if answer is None else row.fn(answer, example)

  return verify
