"""Verifiers: (completion, example) -> reward and reason.

Worker processes import this module, so it needs the standard library only.
"""

from collections.abc import Callable, Mapping, Sequence
import importlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from dppo_jax.rewards import countdown, formats, library_scores
from dppo_jax.rewards.answers import extraction, matching, quantities
from dppo_jax.rewards.answers.spelling import canonical
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
)

if TYPE_CHECKING:  # It imports JAX, which a verifier process must not.
  from dppo_jax.base import Verifier

MAX_ANSWER_LENGTH = 1000  # Characters of an answer that sympy may see.
# Decimals that can differ only by trailing zeros.
_DECIMAL = re.compile(
  r'(-?(?:0|[1-9][0-9]{0,63}))(?:\.([0-9]{1,64}))?', re.ASCII
)

Judge = Callable[[str, Mapping[str, Any]], Verdict]


class VerifierSpec(NamedTuple):
  """One entry of `VERIFIERS`.

  Attributes:
    fn: (text, example) -> verdict; never sees truncated or empty completions.
    reads: its text: 'answer', as found by `rewards.extraction` in the
      completion, or 'completion', all of it.
    imports: module that `fn` imports and that only workers may import; '' if
      `fn` may run in the trainer's process, too.
  """

  fn: Judge
  reads: str
  imports: str


def exact_match(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right if it equals the answer, character by character.

  A single decimal number may have trailing zeros: 1 is 1.0.
  """
  reference = reference_answer(example)
  if answer in (example['answer'], reference):
    return RIGHT
  number = _DECIMAL.fullmatch(answer)
  expected = _DECIMAL.fullmatch(reference)
  if number is None or expected is None:
    return WRONG
  same = number[1] == expected[1] and (
    (number[2] or '').rstrip('0') == (expected[2] or '').rstrip('0')
  )
  return RIGHT if same else WRONG


def last_word(completion: str, example: Mapping[str, Any]) -> Verdict:
  """Right if the last word is the answer."""
  right = completion.split()[-1:] == [example['answer']]
  return RIGHT if right else WRONG


def none(completion: str, example: Mapping[str, Any]) -> Verdict:
  """Reward 0 for every completion: for runs with a reward model only."""
  del completion, example
  return UNJUDGED


def alias_sort(completion: str, example: Mapping[str, Any]) -> Verdict:
  """Right if the digits are those of the answer, under any alias.

  A word 'digit.rank' is an alias of its digit.
  """

  def digits(text: str) -> list[str]:
    return [
      word[0] if re.fullmatch(r'[0-9]\.[0-9]+', word) else word
      for word in text.split()
    ]

  return RIGHT if digits(completion) == digits(example['answer']) else WRONG


def reference_answer(example: Mapping[str, Any]) -> str:
  """Answer of an example, extracted if its 'answer' is a full solution."""
  text = str(example['answer'])
  return extraction.extract(text, ('hashes', 'boxed', 'whole')) or ''


def numeric(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right if both are exactly the same number; see `read_quantity`.

  If the reference is written digit by digit, the answer may be, too.
  """
  reference = reference_answer(example)
  number = quantities.read_quantity(answer)
  expected = quantities.read_quantity(reference)
  if expected is None:
    digits = quantities.read_digits(reference)
    spelled = quantities.read_digits(answer)
    if digits is not None and spelled is not None:
      return RIGHT if digits == spelled else WRONG
  if number is None:
    return MALFORMED
  if expected is None:
    return WRONG
  return RIGHT if quantities.same_quantity(number, expected) else WRONG


def _load() -> matching.FormulaComparisons:
  module: Any = importlib.import_module(VERIFIERS['math'].imports)
  return matching.FormulaComparisons(module.equivalent, module.same_relation)


def math(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right if both are mathematically equivalent; see `matching`.

  Equal texts and bare numbers are compared directly: nearly all of GSM8K.
  """
  reference = reference_answer(example)
  if answer == reference:
    return RIGHT
  number = quantities.read_plain(answer)
  expected = quantities.read_plain(reference)
  if number is not None and expected is not None:
    return RIGHT if number == expected else WRONG
  if len(answer) > MAX_ANSWER_LENGTH:
    return TOO_LONG
  if '\\boxed' in answer:  # A second box, which hedges the first.
    return MALFORMED
  try:
    right = matching.same_answer(canonical(answer), canonical(reference), _load)
  except matching.IntractableError:
    return MALFORMED
  return RIGHT if right else WRONG


VERIFIERS: dict[str, VerifierSpec] = {
  'exact_match': VerifierSpec(exact_match, 'answer', ''),
  'numeric': VerifierSpec(numeric, 'answer', ''),
  'math': VerifierSpec(math, 'answer', 'dppo_jax.rewards.answers.equivalence'),
  'countdown': VerifierSpec(countdown.countdown, 'answer', ''),
  'countdown_subset': VerifierSpec(countdown.countdown_subset, 'answer', ''),
  'reasoning_gym': VerifierSpec(
    library_scores.reasoning_gym, 'answer', 'reasoning_gym'
  ),
  'reasoning_gym_partial': VerifierSpec(
    library_scores.reasoning_gym_partial, 'answer', 'reasoning_gym'
  ),
  'last_word': VerifierSpec(last_word, 'completion', ''),
  'alias_sort': VerifierSpec(alias_sort, 'completion', ''),
  'think_answer': VerifierSpec(formats.think_answer, 'completion', ''),
  'thought': VerifierSpec(formats.thought, 'completion', ''),
  'one_boxed': VerifierSpec(formats.one_boxed, 'completion', ''),
  'none': VerifierSpec(none, 'completion', ''),
}


def make_verifier(
  row: VerifierSpec, extractors: Sequence[str], *, read_thoughts: bool = False
) -> 'Verifier':
  """Verifier of full completions, with extraction.

  Args:
    row: of `VERIFIERS`.
    extractors: keys of `EXTRACTORS`, in the order in which they are tried.
    read_thoughts: whether an answer found only inside the reasoning counts.

  Returns:
    (completion, example, truncated) -> verdict.
  """
  # The full completion is verified verbatim, spaces included.
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
    said = extraction.outside_thoughts(completion)
    answer = extraction.extract(said, extractors)
    if answer is None and read_thoughts:
      answer = extraction.extract(completion, extractors)
    return NO_ANSWER if answer is None else row.fn(answer, example)

  return verify
