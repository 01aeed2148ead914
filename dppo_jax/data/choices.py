"""Multiple-choice options: their layout in a prompt, and the right one.

Data sets publish options with or without letters, as a list, a mapping or text,
and the right one as its letter, its index or its text. Here every option is a
line, '(A) 21', and the answer is a letter.
"""

from collections.abc import Mapping, Sequence
import math
import re
import string
from typing import Any

_LETTERS = string.ascii_uppercase
# Letters of several right options: 'AD', 'A D', 'A, D'.
_SEVERAL = re.compile(r'[A-Z](?:[ ,]{0,2}[A-Z]){1,25}')
_LABEL = re.compile(r'\s*\(?([A-Z])\s*[).:]\s*')


def read_options(value: Any) -> tuple[str, ...]:
  """Texts of the options, without their letters.

  Args:
    value: a list of texts or numbers, or a mapping of letters to them.

  >>> read_options(['A)21', 'B)21.5'])
  ('21', '21.5')

  Raises:
    ValueError: neither, or fewer than 2 or more than 26 entries.
  """
  if isinstance(value, Mapping):
    if list(value) != list(_LETTERS[: len(value)]):
      raise ValueError(
        f'options named {", ".join(map(str, value))[:60]}; name them A, B, …'
        ' in order, or give a list'
      )
    value = list(value.values())
  if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
    raise ValueError(
      f'options as a {type(value).__name__}; a list of texts or numbers'
    )
  texts = [_text(option) for option in value]
  if not 2 <= len(texts) <= len(_LETTERS):
    raise ValueError(f'{len(texts)} options; from 2 to {len(_LETTERS)}')
  labels = [_LABEL.match(text) for text in texts]
  named = [found[1] if found else '' for found in labels]
  if named == list(_LETTERS[: len(texts)]):
    texts = [_LABEL.sub('', text, count=1) for text in texts]
  return tuple(text.strip() for text in texts)


def render(options: Sequence[str]) -> str:
  """Lines of a prompt that list the options.

  >>> render(['21', '21.5']).splitlines()
  ['(A) 21', '(B) 21.5']
  """
  return '\n'.join(
    f'({letter}) {option}'
    for letter, option in zip(_LETTERS, options, strict=False)
  )


def read_answer(value: Any, options: Sequence[str]) -> str:
  """Letter of the right option, or letters if several are right.

  Args:
    value: its letter, 'B' or '(B)'; its index from 0, as a number; or its text,
      if that is unique. Several letters are in order, 'AD' or 'A D'.
    options: their texts; empty if the prompt already lists them, and then only
      a letter or an index is accepted.

  >>> read_answer(1, ['21', '21.5']), read_answer('B', ['21', '21.5'])
  ('B', 'B')
  >>> read_answer('A C', ['21', '21.5', '21.0'])
  'AC'

  Raises:
    ValueError: no such option.
  """
  letters = _LETTERS[: len(options) or len(_LETTERS)]
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  if isinstance(value, int) and not isinstance(value, bool):
    if 0 <= value < len(letters):
      return letters[value]
    raise ValueError(f'the answer {value} of {len(letters)} options, from 0')
  text = _text(value).strip()
  same = [i for i, option in enumerate(options) if option == text]
  label = re.fullmatch(r'\(?([A-Za-z])[).:]?', text)
  # A letter always denotes its option, even if some option's text is a letter.
  if label and label[1].upper() in letters:
    return label[1].upper()
  if len(same) == 1:
    return letters[same[0]]
  if options and _SEVERAL.fullmatch(text):
    several = re.findall('[A-Z]', text)
    if several == sorted({*several} & {*letters}):
      return ''.join(several)
  raise ValueError(
    f'the answer {text[:40]!r} is no letter of {len(options)} options, and the'
    f' text of {len(same)} of them'
  )


def _text(value: Any) -> str:
  if isinstance(value, bool) or not isinstance(value, (str, int, float)):
    raise ValueError(
      f'an option or its letter as a {type(value).__name__}; a text or a number'
    )
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(
      f'an option is {value}, as some tools write the word None; write the text'
    )
  whole = isinstance(value, float) and value.is_integer()
  return str(int(value) if whole else value)
