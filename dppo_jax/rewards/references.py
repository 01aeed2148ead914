r"""Reference answers that no verifier accepts, found before a run starts.

A reference is verified as a model would write it: verbatim, and in its plain
form, `9` for `9 (apples)` and `18` for `A: 18`. A reference that is right in no
form can never be rewarded.
"""

from collections.abc import Iterable, Sequence
import re
from typing import NamedTuple

from dppo_jax import base
from dppo_jax.rewards.pool import VerifierPool

# Verifiers that compare a completion with the reference. Others check a format
# or the numbers used, which the reference does not contain.
COMPARING = ('exact_match', 'numeric', 'math', 'last_word', 'alias_sort')
# Text in which an extractor finds an answer; others read it verbatim.
_TEMPLATES = {
  'boxed': '\\boxed{%s}',
  'hashes': '#### %s',
  'answer_tag': '<answer>%s</answer>',
  'answer_line': 'Answer: %s',
}
_LABEL = re.compile(r'\s*[A-Za-z]\s?:\s*(?=[-+$.]?[0-9]|\\[dt]?frac)')
_REMARK = re.compile(
  r'(?<=[0-9}$%])\s*\((?:[^()0-9\\]*[a-zA-Z]{3})[^()0-9\\]*\)\s*'
)
_MAX_LENGTH = 1000  # Characters of a reference that is searched for remarks.


class Unverifiable(NamedTuple):
  """References that no verifier accepts.

  Attributes:
    num_checked: examples with a reference to check.
    shown: distinct reference -> reason, in the order of the data.
    num_examples: examples with one of these references.
  """

  num_checked: int
  shown: dict[str, str]
  num_examples: int

  @property
  def share(self) -> float:
    """Fraction of the checked examples, in [0, 1]."""
    return self.num_examples / max(1, self.num_checked)


def plain_form(reference: str) -> str:
  """Reference without a label before, or a remark after, its number.

  >>> plain_form('9 (apples)'), plain_form('A: 18'), plain_form('(1, 2)')
  ('9', '18', '(1, 2)')
  """
  if len(reference) > _MAX_LENGTH:
    return reference
  text = reference
  found = _REMARK.search(text)
  if found and found.end() == len(text):
    text = text[: found.start()]
  label = _LABEL.match(text)
  return text[label.end() :] if label else text


def write_completion(answer: str, extraction: Sequence[str]) -> str:
  """Completion in which the first extractor finds the answer."""
  return _TEMPLATES.get(extraction[0], '%s').replace('%s', answer)


def find_unverifiable(
  examples: Iterable[base.Example], pool: VerifierPool
) -> Unverifiable:
  """References that the verifiers reject as their own answer.

  Args:
    examples: examples with 'answer'.
    pool: the run's pool; its terms in `COMPARING` verify.

  Returns:
    The rejected references; `num_checked` is 0 if the pool has no such term.
  """
  judges = [i for i, t in enumerate(pool.terms) if t.name in COMPARING]
  counts: dict[str, int] = {}
  for example in examples:
    if judges and 'answer' in example:
      answer = str(example['answer'])
      counts[answer] = counts.get(answer, 0) + 1
  pairs = [(a, a) for a in counts]
  pairs += [(plain, a) for a in counts if (plain := plain_form(a)) != a]
  if not pairs:
    return Unverifiable(0, {}, 0)
  verdicts = pool.verify_terms(
    [write_completion(text, pool.extraction) for text, _ in pairs],
    [{'answer': reference} for _, reference in pairs],
    [False] * len(pairs),
  )
  failed: dict[str, str] = {}
  for (text, reference), *of_terms in zip(pairs, *verdicts, strict=True):
    mine = [of_terms[i] for i in judges]
    if not any(verdict.reward == 1.0 for verdict in mine):
      said = f'{text!r} is {mine[0].reason}'
      failed.setdefault(
        reference, mine[0].reason if text == reference else said
      )
  return Unverifiable(
    num_checked=sum(counts.values()),
    shown={a: failed[a] for a in counts if a in failed},
    num_examples=sum(counts[a] for a in failed),
  )
