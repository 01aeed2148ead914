r"""Bound on the size of the numbers that evaluating a formula would create.

Powers of powers and factorials of large numbers are cheap to write and costly
to compute. A worker's limits would stop them, at the cost of a timeout each
time; a bound on the size, in one pass over the text, rejects them first.
`(n-1)!`, `2^{2024}` and `7e^{0.04153x}` are accepted.
"""

import math
import re

# log2 of the largest exact integer: 10,000 digits; and of the largest value
# with a letter, which is evaluated in floating point only.
MAX_BITS = 2.0**15
_MAX_BITS_OF_LETTERS = 2.0**20
_LETTER_BITS = math.log2(5)  # Letters are evaluated at numbers of at most 5.
_E_BITS = math.log2(math.e)

_TOKEN = re.compile(
  r'(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)|\\(?P<command>[A-Za-z]+|.)'
  r'|(?P<letter>[A-Za-z])|(?P<other>\S)',
  re.ASCII | re.DOTALL,
)
_OPENING, _CLOSING = frozenset('{(['), frozenset('})]')
# Functions of exponential growth, and operators that may not terminate.
_EXPONENTIAL = frozenset(('exp', 'sinh', 'cosh', 'tanh', 'Gamma'))
_CHOICE = frozenset(('binom', 'dbinom', 'tbinom', 'choose'))
NONTERMINATING = ('\\sum', '\\prod', '\\int', '\\lim', '\\iint', '\\oint')


class _Group:
  """Size bound of one bracket so far: the product of its atoms, at worst.

  Attributes:
    bits: log2 of a bound of the product of all but the last atom.
    last: the same for the last atom, which a power or a factorial changes.
    letters: whether it has letters; its numbers are then floating point.
    raised: whether the next atom is an exponent.
    power: whether the last atom already has an exponent.
  """

  def __init__(self) -> None:
    self.bits = 0.0
    self.last = 0.0
    self.letters = False
    self.raised = False
    self.power = False

  def total(self) -> float:
    return self.bits + self.last

  def add(self, bits: float, letters: bool) -> None:
    """Adds an atom, or raises the last one to it after a `^`."""
    if self.raised:
      # An exponent of 2^60 or more counts as infinite.
      exponent = 2.0**bits if bits < 60 else math.inf
      self.last = max(self.last, 1.0) * exponent
    else:
      self.bits, self.last = self.total(), bits
    self.power, self.raised = self.raised, False
    self.letters |= letters

  def factorial(self) -> None:
    """Replaces the last atom n by n! = Gamma(n + 1)."""
    size = 2.0**self.last if self.last < 60 else math.inf
    log = math.lgamma(size + 1) if size < math.inf else size
    self.last = log / math.log(2)

  def too_large(self) -> bool:
    limit = _MAX_BITS_OF_LETTERS if self.letters else MAX_BITS
    return not self.total() <= limit


def is_tractable(text: str) -> bool:
  r"""Whether a formula creates no huge number and its brackets match.

  >>> is_tractable('(n-1)!'), is_tractable('(n-1!'), is_tractable('2^2^2')
  (True, False, False)

  Args:
    text: LaTeX, of bounded length.

  Returns:
    False where a number is beyond 2 to the power of `MAX_BITS`, a bracket is
    open, or a power has a second exponent, as none has in LaTeX.
  """
  groups = [_Group()]
  closing: list[str] = []
  for found in _TOKEN.finditer(text):
    group = groups[-1]
    if number := found['number']:
      whole = number.partition('.')[0] or '0'
      # An integer of 1,000 digits is beyond a float, but not its logarithm.
      size = len(whole) * math.log2(10)
      size = math.log2(max(int(whole), 1)) if len(whole) < 16 else size
      group.add(size, False)
    elif letter := found['letter']:
      group.add(_E_BITS if letter == 'e' else _LETTER_BITS, letter != 'e')
    elif command := found['command']:
      if command == 'circ':  # A degree sign is not an exponent.
        group.raised = False
      elif command in _EXPONENTIAL:
        group.add(_E_BITS, False)
        group.raised = True
      elif command in _CHOICE:  # Below 2^n.
        group.add(1.0, False)
        group.raised = True
    else:
      char = found['other']
      if char in _OPENING:
        groups.append(_Group())
        closing.append(char)
      elif char in _CLOSING:
        if len(groups) == 1 or (char == '}') != (closing.pop() == '{'):
          return False
        inner = groups.pop()
        groups[-1].add(inner.total(), inner.letters)
      elif char == '^':
        if group.raised or group.power:
          return False  # `a^b^c`: no LaTeX, and grammars read on.
        group.raised = True
      elif char == '!':
        group.factorial()
    if groups[-1].too_large():
      return False
  return len(groups) == 1
