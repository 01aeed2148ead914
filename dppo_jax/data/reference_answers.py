"""Reference answers, extracted from the published solutions."""

import re

from dppo_jax.data import choices

_BOX = re.compile(r'\\(?:boxed|fbox)\s*')
_INTEGER = re.compile(
  r'\$?\s*([0-9]{1,18})\s*'
  r'(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|\\degree|°|degrees?)?\s*\$?',
  re.ASCII,
)
_IN_PARENTHESES = re.compile(r'\(\s*([0-9]+(?:[./][0-9]+)?)\s*\)', re.ASCII)
MAX_SOLUTION_LENGTH = 1_000_000  # Characters; published ones have thousands.


def as_is(text: str) -> str:
  """The text itself, stripped.

  >>> as_is(' 12 ')
  '12'
  """
  return text.strip()


def integer(text: str) -> str:
  r"""Integer without leading zeros; AIME writes '025'.

  Some published copies include an angle's unit, '336^\circ'; it is dropped.

  >>> integer('025'), integer(r'336^\circ')
  ('25', '336')

  Raises:
    ValueError: the text is no integer.
  """
  found = _INTEGER.fullmatch(text.strip())
  if not found:
    raise ValueError(f'{text[:40]!r} is not a whole number')
  return str(int(found[1]))


def number(text: str) -> str:
  """Number, an integer without '.0'; SVAMP writes '145.0'.

  >>> number('145.0'), number('2.5')
  ('145', '2.5')
  """
  return re.sub(r'(?<=[0-9])\.0+\Z', '', text.strip())


def without_units(text: str) -> str:
  """Numbers without units; ASDiv writes units in parentheses.

  Parentheses that hold a number stay, without themselves.

  >>> without_units('9 (apples)'), without_units('5 (red); 8 (blue)')
  ('9', '5, 8')
  >>> without_units('-(1/3)')
  '-1/3'

  Raises:
    ValueError: nothing is left.
  """
  bare = _IN_PARENTHESES.sub(r'\1', text)
  parts = re.sub(r'\([^()]*\)', ' ', bare).split(';')
  kept = [' '.join(part.split()) for part in parts if part.strip()]
  if not kept:
    raise ValueError(f'no answer in {text[:40]!r} outside parentheses')
  return ', '.join(kept)


def letter(text: str) -> str:
  """Letter of an option, given as its letter or its index from 0.

  >>> letter('D'), letter('3')
  ('D', 'D')

  Raises:
    ValueError: neither a letter nor an index.
  """
  text = text.strip()
  index = re.fullmatch('[0-9]{1,9}', text)
  return choices.read_answer(int(text) if index else text, ())


def without_dollars(text: str) -> str:
  """Formula without math-mode dollars around it: '$2$' is '2'.

  >>> without_dollars('$2$'), without_dollars('$1$ and $2$')
  ('2', '$1$ and $2$')
  """
  text = text.strip()
  inner = text.strip('$')
  bare = text.startswith('$') and text.endswith('$') and '$' not in inner
  return inner.strip() if bare else text


def after_hashes(solution: str) -> str:
  """Text after the last '####' (GSM8K), without thousands separators.

  >>> after_hashes('6 * 200 = <<6*200=1200>>1200.' + chr(10) + '#### 1,200')
  '1200'

  Raises:
    ValueError: no '####', or no text after it.
  """
  _, mark, answer = solution.rpartition('####')
  answer = re.sub(r'(?<=[0-9]),(?=[0-9]{3})', '', answer.strip())
  if not mark or not answer:
    raise ValueError("no answer after a '####'")
  return answer


def last_boxed(solution: str) -> str:
  r"""Content of the last \boxed{…} (MATH), nested braces included.

  Also of \fbox{…}, and of '\boxed 7' without braces.

  >>> last_boxed(r'so \boxed{1}, no: \boxed{\frac{1}{2}}.')
  '\\frac{1}{2}'

  Raises:
    ValueError: there is no box, it is empty, or its braces do not match.
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
  r"""Text between the brace at `begin` and the one that closes it.

  `\{` and `\}` are literal braces, and `\\` is a line break.
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
