"""Reference answers, out of the solutions that data sets publish."""

import re

_BOX = re.compile(r'\\(?:boxed|fbox)\s*')
MAX_SOLUTION_LENGTH = 1_000_000  # Characters; published ones have thousands.


def as_is(text: str) -> str:
  """The answer itself, without space around it.

  >>> as_is(' 12 ')
  '12'
  """
  return text.strip()


def integer(text: str) -> str:
  """A whole number without leading zeros, as AIME writes '025'.

  >>> integer('025')
  '25'

  Raises:
    ValueError: it is something else.
  """
  if not re.fullmatch(r'\s*[0-9]{1,18}\s*', text):
    raise ValueError(f'{text[:40]!r} is not a whole number')
  return str(int(text))


def after_hashes(solution: str) -> str:
  """What stands behind the last '####' (GSM8K), without thousands commas.

  >>> after_hashes('6 * 200 = <<6*200=1200>>1200.' + chr(10) + '#### 1,200')
  '1200'

  Raises:
    ValueError: there is no '####', or nothing behind it.
  """
  _, mark, answer = solution.rpartition('####')
  answer = re.sub(r'(?<=[0-9]),(?=[0-9]{3})', '', answer.strip())
  if not mark or not answer:
    raise ValueError("no answer behind a '####'")
  return answer


def last_boxed(solution: str) -> str:
  r"""The content of the last \boxed{…} (MATH), braces in braces included.

  Also of \fbox{…}, and of '\boxed 7' without braces.

  >>> last_boxed(r'so \boxed{1}, no: \boxed{\frac{1}{2}}.')
  '\\frac{1}{2}'

  Raises:
    ValueError: there is none, it is empty, or its braces do not close.
  """
  if len(solution) > MAX_SOLUTION_LENGTH:
    raise ValueError(f'a solution of {len(solution):,} characters')
  boxes = list(_BOX.finditer(solution))
  if not boxes:
    raise ValueError(r'no \boxed{…}')
  begin = boxes[-1].end()
  if solution[begin : begin + 1] == '{':
    answer = _in_braces(solution, begin)
  else:
    answer = re.split(r'[\s$.,]', solution[begin:], maxsplit=1)[0]
  if not answer.strip():
    raise ValueError(r'an empty \boxed{}')
  return answer.strip()


def _in_braces(text: str, begin: int) -> str:
  r"""What stands between the brace at `begin` and the one that closes it.

  `\{` and `\}` are signs of the formula, and `\\` is a line break.
  """
  depth, at = 0, begin
  while at < len(text):
    if text[at] == '\\':
      at += 2
      continue
    depth += {'{': 1, '}': -1}.get(text[at], 0)
    if depth == 0:
      return text[begin + 1 : at]
    at += 1
  raise ValueError(r'a \boxed{ without its closing brace')
