"""Equality of two formulas, parsed into sympy by math-verify's grammar.

Only worker processes import this module: sympy may need unbounded time and
memory for an answer, and the worker has limits for both. sympy parses numbers
with `eval`; that is replaced here, so that no text is ever evaluated.

A text is parsed in full or rejected. Equality is numerical: both formulas are
evaluated to 40 digits at the same few points, with a relative tolerance, so
tiny numbers are told apart, too. Unequal formulas agree only by coincidence.
Nothing is simplified, since that may not terminate.
"""

from collections.abc import Sequence
import re
from typing import Any

import latex2sympy2_extended
from latex2sympy2_extended import latex2sympy2
import sympy
from sympy.core import function
from sympy.parsing import sympy_parser
import sympy.physics.units  # Evaluates names of its own when first imported.

_LITERAL = re.compile(r'[0-9]{1,1000}|[0-9]{0,1000}\.[0-9]{0,1000}', re.ASCII)
_CAPITAL_I = re.compile(r'(?<![A-Za-z\\])I(?![A-Za-z])')
_DEGREES = re.compile(r'([0-9.]+)\s*\^\s*\\circ(?![A-Za-z])')
_TRIGONOMETRY = re.compile(r'\\(?:sin|cos|tan|cot|sec|csc)')
_NORMALIZATION = latex2sympy2_extended.NormalizationConfig(
  basic_latex=True,
  units=False,  # It takes the t of `2t` for one.
  malformed_operators=True,
  nits=False,
  boxed='none',
)
_CONVERSION = latex2sympy2.ConversionConfig(lowercase_symbols=False)
_DIGITS = 40  # Of an evaluation.
_TOLERANCE = sympy.Float('1e-25', 10)  # Relative.
_MIN_POINTS = 3  # Points that must agree.
# Values of letters, in order, per point. Points are positive, integer, or
# partly negative; a point where just one expression is real is skipped.
_POINTS = (
  ('1.3713', '2.7391', '0.6177', '1.9231', '3.1873', '0.8419', '2.2307'),
  ('0.4597', '1.1719', '2.9137', '0.7331', '1.6189', '3.4217', '0.9293'),
  ('3', '5', '2', '4', '1', '5', '3'),
  ('2.3147', '0.5531', '1.4561', '3.3391', '0.2719', '1.0873', '2.6113'),
  ('-1.7717', '2.1613', '-0.3571', '-2.4179', '1.2713', '-3.1177', '0.6637'),
  ('1.8371', '-0.9173', '-2.6713', '0.3877', '-1.5313', '2.0771', '-0.7717'),
)


def _read_literal(text: Any, *_: Any, **__: Any) -> sympy.Number:
  """sympy number of a decimal literal, exactly."""
  text = str(text)
  if not _LITERAL.fullmatch(text) or text == '.':
    raise ValueError(f'not a number: {text[:40]!r}')
  return sympy.Float(text) if '.' in text else sympy.Integer(int(text))


def _reject(*_: Any) -> Any:
  raise ValueError('text is not evaluated.')


def _disable_eval() -> None:
  """Replaces sympy's uses of `eval` on text, in this process."""
  parser: Any = sympy_parser
  grammar: Any = latex2sympy2
  parser.parse_expr = grammar.parse_expr = _read_literal
  parser.eval = _reject


_disable_eval()


def read(text: str) -> Any:
  """sympy object of a formula.

  Args:
    text: LaTeX of one formula, without delimiters.

  Returns:
    The object; None if the grammar does not parse all of the text.

  Raises:
    MemoryError: the formula is too large for the process.
  """
  # A capital I is a variable here; the grammar would read the imaginary unit.
  text = _CAPITAL_I.sub(r'\\Xi ', text)
  angle = (
    r'(\1\\cdot\\frac{\\pi}{180})' if _TRIGONOMETRY.search(text) else r'\1'
  )
  text = _DEGREES.sub(angle, text)
  try:
    found = latex2sympy2.latex2sympy(
      text,
      normalization_config=_NORMALIZATION,
      conversion_config=_CONVERSION,
    )
  except MemoryError:
    raise
  except Exception:  # The grammar raises bare ones.
    return None
  if isinstance(found, sympy.MatrixExpr):  # A sum or product of matrices.
    found = found.doit()
  return _exact(found) if isinstance(found, sympy.Expr) else found


def _exact(expression: Any) -> Any:
  """Expression with decimals as fractions, i imaginary, and f(x) as symbols."""
  values: dict[Any, Any] = {
    number: sympy.Rational(str(number))
    for number in expression.atoms(sympy.Float)
  }
  values |= {
    call: sympy.Symbol(str(call))
    for call in expression.atoms(function.AppliedUndef)
  }
  values[sympy.Symbol('i')] = sympy.I
  return expression.xreplace(values)


def _evaluate(
  expression: Any, names: Sequence[str], point: int, digits: int = _DIGITS
) -> Any:
  """Value of an expression at a point; None if undefined."""
  values = _POINTS[point]
  substitution = {
    sympy.Symbol(name): sympy.Rational(values[i % len(values)]) + i // 7
    for i, name in enumerate(names)
  }
  try:
    value = expression.xreplace(substitution).evalf(digits, maxn=4 * digits)
  except MemoryError:
    raise
  except Exception:  # Whatever sympy finds undefined.
    return None
  real, imaginary = value.as_real_imag()
  if not (real.is_Number and imaginary.is_Number):
    return None
  finite = real.is_finite and imaginary.is_finite
  return sympy.Add(real, sympy.I * imaginary) if finite else None


def _is_real(value: Any) -> bool:
  real, imaginary = value.as_real_imag()
  return bool(abs(imaginary) <= _TOLERANCE * abs(real))


def _near(first: Any, second: Any) -> bool:
  """Whether two values differ by rounding only."""
  size = max(abs(first).evalf(_DIGITS), abs(second).evalf(_DIGITS))
  if size == 0:
    return True
  difference = abs(first - second).evalf(_DIGITS)
  return bool(difference <= _TOLERANCE * size)


def _vanishes(expression: Any, names: Sequence[str], point: int) -> bool:
  """Whether a value is 0: it shrinks as the precision grows."""
  coarse, fine = (_evaluate(expression, names, point, n) for n in (40, 80))
  if coarse is None or fine is None:
    return False
  return bool(abs(fine) <= _TOLERANCE * abs(coarse))


def _names(*expressions: Any) -> list[str]:
  return sorted({str(s) for e in expressions for s in e.free_symbols})


def _agree(first: Any, second: Any) -> bool:
  """Whether two expressions agree at all points where both are real.

  They must also agree where neither is real. Points where just one is real,
  such as a root of a negative number, are skipped.
  """
  if first == second:
    return True
  names = _names(first, second)
  agreed = 0
  for point in range(len(_POINTS) if names else 1):
    one = _evaluate(first, names, point)
    other = _evaluate(second, names, point)
    if one is None or other is None:
      continue
    if names and _is_real(one) != _is_real(other):
      continue
    if not (one and other):
      expression = first if one else second
      if not _vanishes(expression, names, point):
        return False
    elif not _near(one, other):
      return False
    agreed += 1
  return agreed >= (_MIN_POINTS if names else 1)


def equivalent(answer: str, reference: str) -> bool:
  """Whether an answer equals the reference, mathematically.

  Args:
    answer: LaTeX of one formula, untrusted.
    reference: LaTeX of one formula, trusted.
  """
  return same(read(answer), read(reference))


def same(first: Any, second: Any) -> bool:
  """Whether two objects of `read` are the same expression or matrix."""
  if isinstance(first, sympy.MatrixBase) or isinstance(
    second, sympy.MatrixBase
  ):
    return (
      isinstance(first, sympy.MatrixBase)
      and isinstance(second, sympy.MatrixBase)
      and first.shape == second.shape
      and all(
        _agree(_exact(a), _exact(b))
        for a, b in zip(first.flat(), second.flat(), strict=True)
      )
    )
  if not isinstance(first, sympy.Expr) or not isinstance(second, sympy.Expr):
    return False
  return _agree(first, second)


def same_relation(
  answer: tuple[str, str], reference: tuple[str, str], ordered: bool
) -> bool:
  """Whether two relations with the same sign are equivalent.

  left - right of one must be a constant multiple of that of the other, and
  depend on a variable: relations that always or never hold are not compared.

  Args:
    answer: its two sides, LaTeX, untrusted.
    reference: its two sides.
    ordered: whether the sign is an inequality; the multiple must be positive.
  """
  sides = [read(side) for side in (*answer, *reference)]
  if not all(isinstance(side, sympy.Expr) for side in sides):
    return False
  first, second = sides[0] - sides[1], sides[2] - sides[3]
  names = _names(first, second)
  if not names or _names(first) != _names(second):
    return False
  multiple, values, agreed = None, [], 0
  for point in range(len(_POINTS)):
    one = _evaluate(first, names, point)
    other = _evaluate(second, names, point)
    if one is None or other is None or not other:
      continue
    if not (_is_real(one) and _is_real(other)):
      continue
    ratio = (one / other).evalf(_DIGITS)
    if multiple is None:
      multiple = ratio
    if not ratio or not _near(ratio, multiple):
      return False
    values.append(other)
    agreed += 1
  constant = all(_near(value, values[0]) for value in values)
  if agreed < _MIN_POINTS or multiple is None or constant:
    return False
  return not ordered or bool(sympy.re(multiple) > 0)
