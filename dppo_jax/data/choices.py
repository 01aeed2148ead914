"""Options of a multiple choice: how a prompt lists them, and which is right.

Data sets publish options with and without their letters, as a list, a mapping
or a text, and the right one as its letter, its number or its text. Here every
option stands on a line of its own, '(A) 21', and the answer is a letter.
"""

from collections.abc import Mapping, Sequence
import re
import string
from typing import Any

_LETTERS = string.ascii_uppercase
_LABEL = re.compile(r'\s*\(?([A-Z])\s*[).:]\s*')


def read_options(value: Any) -> tuple[str, ...]:
  """The texts of options, without their letters.

  Args:
    value: a list of texts or numbers, or a mapping of letters to them.

  >>> read_options(['A)21', 'B)21.5'])
  ('21', '21.5')

  Raises:
    ValueError: it is neither, or has fewer than 2 or more than 26 entries.
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
  """The options as lines of a prompt.

  >>> render(['21', '21.5']).splitlines()
  ['(A) 21', '(B) 21.5']
  """
  return '\n'.join(
    f'({letter}) {option}'
    for letter, option in zip(_LETTERS, options, strict=False)
  )


def read_answer(value: Any, options: Sequence[str]) -> str:
  """The letter of the right option.

  Args:
    value: its letter, 'B' or '(B)'; its number from 0, not written as a text;
      or its text, where no other option has the same.
    options: the texts; empty where a prompt lists them itself, and then the
      letter or the number is all there is.

  >>> read_answer(1, ['21', '21.5']), read_answer('B', ['21', '21.5'])
  ('B', 'B')

  Raises:
    ValueError: it is none of the options.
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
  # An option that is itself a letter is meant by its letter: 'B' is (B).
  if label and label[1].upper() in letters:
    return label[1].upper()
  if len(same) == 1:
    return letters[same[0]]
  raise ValueError(
    f'the answer {text[:40]!r} is no letter of {len(options)} options, and the'
    f' text of {len(same)} of them'
  )


def _text(value: Any) -> str:
  if isinstance(value, bool) or not isinstance(value, (str, int, float)):
    raise ValueError(
      f'an option or its letter as a {type(value).__name__}; a text or a number'
    )
  return f'{value:g}' if isinstance(value, float) else str(value)
