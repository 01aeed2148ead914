r"""Finds the answer in a completion: \boxed{…}, #### …, <answer>…, Answer: ….

Completions are hostile: every function here is linear in the text and neither
recurs nor searches backward.
"""

import collections
from collections.abc import Callable, Sequence
import re

from dppo_jax.rewards.answers.boxes import last_boxed, unbox

_THOUGHTS = (
  ('<think>', '</think>'),
  ('<thinking>', '</thinking>'),
  ('[THINK]', '[/THINK]'),
)
_ANSWER_LINE = re.compile(
  r'(?:\banswers?(?:\s{1,4}is)?|答案)[ \t]{0,4}[*_]{0,3}[ \t]{0,4}[:\uff1a]',
  re.IGNORECASE,
)
_LINES_TRIED = 4  # Of those that say 'Answer:', from the end.
_OPENERS = ('$$', '\\[', '```', '```text')
_LAST_CHARS = 10_000  # Of a completion, where its last number is looked for.
_NUMBER = re.compile(
  r'(?<![A-Za-z0-9_.,])(?:(?<![)\]}])[-−])?(?:\\?\$|€|£)?[-−]?'
  r'(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?'
  r'|[0-9]+ [0-9]+/[0-9]+|[0-9]+/[0-9]+'
  r'|[0-9]*\\[dt]?frac\{-?[0-9]+\}\{[0-9]+\}'
  r'|[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|\.[0-9]+)'
  r'(?: ?(?:×|\\times|\*) ?10\^\{?-?[0-9]+\}?)?(?: ?\\?%)?'
)


def outside_thoughts(text: str) -> str:
  """What follows the thought: `<think>…</think>`, `[THINK]…[/THINK]`.

  A completion may begin within its thought, where the prompt opened it. One
  that opens a thought and does not close it says nothing from there on.
  """
  for opening, closing in _THOUGHTS:
    if closing in text:
      text = text[text.rfind(closing) + len(closing) :]
    if opening in text:
      text = text[: text.find(opening)]
  return text


def after_hashes(text: str) -> str | None:
  """The rest of the line after the last '####', as GSM8K writes answers."""
  start = text.rfind('####')
  if start < 0:
    return None
  return text[start + 4 :].lstrip(' \t').split('\n', 1)[0]


def last_answer_tag(text: str) -> str | None:
  """What the last `<answer>…</answer>` holds."""
  end = text.rfind('</answer>')
  start = text.rfind('<answer>', 0, max(end, 0))
  return text[start + len('<answer>') : end] if start >= 0 else None


def answer_line(text: str) -> str | None:
  """What follows the last 'Answer:' that something follows.

  In any case, in bold or not, on its line or on the next that is not empty;
  DAPO's prompts ask for it.

  >>> answer_line('so Answer: 4' + chr(10) + '**ANSWER**: 5')
  '5'
  """
  marks = collections.deque(_ANSWER_LINE.finditer(text), maxlen=_LINES_TRIED)
  for mark in reversed(marks):
    start, line = mark.end(), ''
    for _ in range(3):
      rest = text[start:].lstrip(' \t\r\n*_')
      line, newline, _ = rest.partition('\n')
      if line.strip() not in _OPENERS:
        break
      start = len(text) - len(rest) + len(line) + len(newline)
    answer = line.strip('*$` \t\r')
    if answer:
      return answer
  return None


def last_number(text: str) -> str | None:
  """The last number, for models that write plain English.

  >>> last_number('The answer is 14.')
  '14'
  """
  number = None
  for found in _NUMBER.finditer(text[-_LAST_CHARS:]):
    number = found[0]
  return number


def whole(text: str) -> str | None:
  """The text itself: the completion is the answer."""
  return text


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
  'whole': whole,
  'boxed': last_boxed,
  'hashes': after_hashes,
  'answer_tag': last_answer_tag,
  'answer_line': answer_line,
  'last_number': last_number,
}


def extract(text: str, extraction: Sequence[str]) -> str | None:
  """The answer by the first extractor that finds one, stripped.

  A box within what is found is taken out of it, where it is all that is there.

  Args:
    text: a completion.
    extraction: keys of `EXTRACTORS`, in the order they are tried.

  Returns:
    The answer; None where none finds any, or finds only space.
  """
  for name in extraction:
    answer = EXTRACTORS[name](text)
    if answer is not None and answer.strip():
      return unbox(answer).strip()
  return None


def parse_extraction(text: str) -> tuple[str, ...]:
  """Reads 'boxed, hashes' of a config.

  Raises:
    ValueError: a name is unknown, or there is none.
  """
  names = tuple(name.strip() for name in text.split(','))
  unknown = [name for name in names if name not in EXTRACTORS]
  if unknown:
    raise ValueError(
      f'rewards.extraction: unknown {unknown[0]!r} in {text!r}; known:'
      f' {", ".join(EXTRACTORS)}, separated by commas, the first that finds'
      ' an answer counts.'
    )
  return names
