r"""How large the numbers are that a formula would make sympy write down.

Powers of powers and factorials of large numbers are cheap to write and dear to
compute. The limits of a worker stop whatever slips through, at their price each
time; this turns it away by a bound on its size, in one pass over the text.
`(n-1)!`, `2^{2024}` and `7e^{0.04153x}` stay.
"""

import math
import re

# log2 of the largest number that is written out, digit by digit: 10,000
# digits; and of one with a letter, which is evaluated in floating point only.
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
# Functions that grow as a power of e does, and those that may run for ever.
_EXPONENTIAL = frozenset(('exp', 'sinh', 'cosh', 'tanh', 'Gamma'))
_CHOICE = frozenset(('binom', 'dbinom', 'tbinom', 'choose'))
ENDLESS = ('\\sum', '\\prod', '\\int', '\\lim', '\\iint', '\\oint')


class _Group:
  """What has been read of one bracket: its parts multiply, at the worst.

  Attributes:
    bits: log2 of a bound of the product of all but the last atom.
    last: the same of the last atom, which a power or a factorial changes.
    letters: whether it holds any; its numbers are then not written out.
    raised: whether what comes next is an exponent.
    power: whether the last atom has had its exponent.
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
    """Takes an atom, as an exponent of the last one where `^` came first."""
    if self.raised:
      # An exponent of 2^60 or more is none to compute with.
      exponent = 2.0**bits if bits < 60 else math.inf
      self.last = max(self.last, 1.0) * exponent
    else:
      self.bits, self.last = self.total(), bits
    self.power, self.raised = self.raised, False
    self.letters |= letters

  def factorial(self) -> None:
    """n! is Gamma(n + 1)."""
    size = 2.0**self.last if self.last < 60 else math.inf
    log = math.lgamma(size + 1) if size < math.inf else size
    self.last = log / math.log(2)

  def too_large(self) -> bool:
    limit = _MAX_BITS_OF_LETTERS if self.letters else MAX_BITS
    return not self.total() <= limit


def is_tame(text: str) -> bool:
  r"""Whether a formula writes no astronomic number and its braces match.

  >>> is_tame('(n-1)!'), is_tame('(n-1!'), is_tame('2^2^2')
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
      if command == 'circ':  # A degree sign is no exponent.
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
