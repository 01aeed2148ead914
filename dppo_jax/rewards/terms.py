"""A reward as a weighted sum of verifiers: 'math + 0.1 * think_answer'."""

from collections.abc import Collection, Sequence
import math
from typing import NamedTuple

from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.suggestions import suggest


class Term(NamedTuple):
  """One summand.

  Attributes:
    weight: finite.
    name: of a verifier or of a shaping term.
  """

  weight: float
  name: str


def parse_terms(
  path: str, text: str, known: Collection[str], *, functions: bool
) -> tuple[Term, ...]:
  """Terms of a sum of names, each with an optional weight and '*' before it.

  >>> parse_terms('x', 'a + 0.5*b', ('a', 'b'), functions=False)
  (Term(weight=1.0, name='a'), Term(weight=0.5, name='b'))

  Args:
    path: config path, for messages.
    text: the sum.
    known: allowed names.
    functions: whether 'package.module:function' is allowed, too.

  Returns:
    The terms, in order, each name once.

  Raises:
    ValueError: no such sum.
  """
  terms: list[Term] = []
  for part in text.split(' + '):
    before, times, name = part.rpartition('*')
    name = name.strip()
    weight = 1.0
    if times:
      try:
        weight = float(before)
      except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
      raise ValueError(
        f'{path}: got the weight {before.strip()!r} in {text!r}; a finite'
        " number: 'a + 0.1 * b'."
      )
    module, _, function = name.partition(':')
    if name not in known and not (functions and module and function):
      mine = " Or name your own function: 'package.module:function'."
      raise ValueError(
        f'{path}: unknown {name!r}{suggest(name, sorted(known))}'
        f'{mine if functions else ""}'
      )
    if any(term.name == name for term in terms):
      raise ValueError(f'{path}: {name!r} occurs twice; add its weights up.')
    terms.append(Term(weight, name))
  return tuple(terms)


def combine(
  terms: Sequence[Term], verdicts: Sequence[Sequence[Verdict]]
) -> list[Verdict]:
  """Weighted sum of rewards, with the reasons of the first term.

  Args:
    terms: the sum.
    verdicts: B verdicts per term.

  Returns:
    B verdicts.
  """
  return [
    Verdict(
      math.fsum(
        term.weight * verdict.reward
        for term, verdict in zip(terms, of_one, strict=True)
      ),
      of_one[0].reason,
    )
    for of_one in zip(*verdicts, strict=True)
  ]
