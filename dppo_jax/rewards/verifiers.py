"""Verifiers: a completion and its example to a reward and a reason.

Worker processes import this module, so it needs the standard library only.
"""

from collections.abc import Callable, Mapping, Sequence
import importlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from dppo_jax.rewards import countdown, formats
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
# Digits that nothing but zeros after the point can spell otherwise.
_DECIMAL = re.compile(
  r'(-?(?:0|[1-9][0-9]{0,63}))(?:\.([0-9]{1,64}))?', re.ASCII
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
  """Right where it is the answer, character by character.

  One decimal number, alone, may end in zeros: 1 is 1.0.
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
  """Right where both are the same number, exactly; see `read_quantity`.

  Where the reference is spelled digit by digit the answer may be, too.
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


def _ask() -> matching.Questions:
  module: Any = importlib.import_module(VERIFIERS['math'].imports)
  return matching.Questions(module.equivalent, module.same_relation)


def math(answer: str, example: Mapping[str, Any]) -> Verdict:
  """Right where both mean the same; see `matching`.

  Equal texts and bare numbers are settled at once: that is nearly all of
  GSM8K.
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
  if '\\boxed' in answer:  # A second one, that hedges the first.
    return MALFORMED
  try:
    right = matching.same_answer(canonical(answer), canonical(reference), _ask)
  except matching.UntamedError:
    return MALFORMED
  return RIGHT if right else WRONG


VERIFIERS: dict[str, Row] = {
  'exact_match': Row(exact_match, 'answer', ''),
  'numeric': Row(numeric, 'answer', ''),
  'math': Row(math, 'answer', 'dppo_jax.rewards.answers.equivalence'),
  'countdown': Row(countdown.countdown, 'answer', ''),
  'countdown_subset': Row(countdown.countdown_subset, 'answer', ''),
  'last_word': Row(last_word, 'completion', ''),
  'alias_sort': Row(alias_sort, 'completion', ''),
  'think_answer': Row(formats.think_answer, 'completion', ''),
  'thought': Row(formats.thought, 'completion', ''),
  'one_boxed': Row(formats.one_boxed, 'completion', ''),
  'none': Row(none, 'completion', ''),
}


def make_verifier(
  row: Row, extractors: Sequence[str], *, read_thoughts: bool = False
) -> 'Verifier':
  """A verifier of whole completions.

  Args:
    row: of `VERIFIERS`.
    extractors: keys of `EXTRACTORS`, in the order they are tried.
    read_thoughts: whether an answer counts that stands in a thought only.

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
    said = extraction.outside_thoughts(completion)
    answer = extraction.extract(said, extractors)
    if answer is None and read_thoughts:
      answer = extraction.extract(completion, extractors)
    return NO_ANSWER if answer is None else row.fn(answer, example)

  return verify
