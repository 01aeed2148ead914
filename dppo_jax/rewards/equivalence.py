"""Whether two LaTeX answers mean the same, by math-verify and sympy.

Only worker processes import this module: sympy may take any time and memory
over an answer, and the worker has limits for both. sympy reads numbers by
`eval`; here that is replaced, so that no text is ever evaluated.
"""

import logging
import re
from typing import Any

import math_verify
import sympy
from sympy.parsing import sympy_parser
import sympy.physics.units  # Evaluates names of its own when first imported.

_LITERAL = re.compile(r'[0-9]{1,1000}|[0-9]{0,1000}\.[0-9]{0,1000}', re.ASCII)
# Not `ExprExtractionConfig`, which hands whole texts to `eval`.
_TARGETS = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]


def _read_literal(text: Any, *_: Any, **__: Any) -> sympy.Number:
  """What sympy reads of a text: a decimal literal, or nothing."""
  text = str(text)
  if not _LITERAL.fullmatch(text) or text == '.':
    raise ValueError(f'not a number: {text[:40]!r}')
  return sympy.Float(text) if '.' in text else sympy.Integer(int(text))


def _refuse(*_: Any) -> Any:
  raise ValueError('text is not evaluated.')


def _shut_out_eval() -> None:
  """Makes sympy's way from text to `eval` a dead end, in this process."""
  module: Any = sympy_parser
  module.parse_expr = _read_literal
  module.eval = _refuse
  # The limits are the pool's; without its own, math-verify warns of that.
  logging.getLogger('math_verify').setLevel(logging.CRITICAL)


_shut_out_eval()


def parse(answer: str) -> list[Any]:
  """What math-verify reads of an answer: an expression, and its text.

  Args:
    answer: LaTeX, without dollars or box.

  Returns:
    Empty where it reads nothing.
  """
  return math_verify.parse(
    f'\\boxed{{{answer}}}',
    extraction_config=_TARGETS,
    parsing_timeout=None,  # pyright: ignore[reportArgumentType]
    raise_on_error=True,
  )


def equivalent(answer: str, reference: str) -> bool:
  """Whether an answer means what the reference means.

  Args:
    answer: LaTeX, hostile.
    reference: LaTeX, trusted.
  """
  return math_verify.verify(
    parse(reference),
    parse(answer),
    timeout_seconds=None,
    raise_on_error=True,
  )
