r"""Finds the answer in a completion: \boxed{…}, #### …, <answer>…, Answer: ….

Completions are untrusted: every function is linear in the text, without
recursion or backtracking.
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
_LINES_TRIED = 4  # 'Answer:' lines, from the end.
_OPENERS = ('$$', '\\[', '```', '```text')
_LAST_CHARS = 10_000  # Of a completion, searched for its last number.
_NUMBER = re.compile(
  r'(?<![A-Za-z0-9_.,])(?:(?<![)\]}])[-−])?(?:\\?\$|€|£)?[-−]?'
  r'(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?'
  r'|[0-9]+ [0-9]+/[0-9]+|[0-9]+/[0-9]+'
  r'|[0-9]*\\[dt]?frac\{-?[0-9]+\}\{[0-9]+\}'
  r'|[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|\.[0-9]+)'
  r'(?: ?(?:×|\\times|\*) ?10\^\{?-?[0-9]+\}?)?(?: ?\\?%)?'
)


def outside_thoughts(text: str) -> str:
  """Text after the reasoning: `<think>…</think>`, `[THINK]…[/THINK]`.

  A completion may begin inside its reasoning, if the prompt opened it. Text
  after an opening tag that is never closed is dropped.
  """
  for opening, closing in _THOUGHTS:
    if closing in text:
      text = text[text.rfind(closing) + len(closing) :]
    if opening in text:
      text = text[: text.find(opening)]
  return text


def after_hashes(text: str) -> str | None:
  """Rest of the line after the last '####', GSM8K's answer format."""
  start = text.rfind('####')
  if start < 0:
    return None
  return text[start + 4 :].lstrip(' \t').split('\n', 1)[0]


def last_answer_tag(text: str) -> str | None:
  """Content of the last `<answer>…</answer>`."""
  end = text.rfind('</answer>')
  start = text.rfind('<answer>', 0, max(end, 0))
  return text[start + len('<answer>') : end] if start >= 0 else None


def answer_line(text: str) -> str | None:
  """Text after the last 'Answer:' that is not empty; DAPO's answer format.

  Case and bold marks do not matter. The text is on the same line or on the next
  non-empty one.

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
  """Last number in the text, for models that write plain English.

  >>> last_number('The answer is 14.')
  '14'
  """
  number = None
  for found in _NUMBER.finditer(text[-_LAST_CHARS:]):
    number = found[0]
  return number


def whole(text: str) -> str | None:
  """The text itself: the full completion is the answer."""
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
  """Answer of the first extractor that finds one, stripped.

  An answer that is only a box is unboxed.

  Args:
    text: a completion.
    extraction: keys of `EXTRACTORS`, in the order in which they are tried.

  Returns:
    The answer; None if no extractor finds one that is not blank.
  """
  for name in extraction:
    answer = EXTRACTORS[name](text)
    if answer is not None and answer.strip():
      return unbox(answer).strip()
  return None


def parse_extraction(text: str) -> tuple[str, ...]:
  """Extractor names of a config value such as 'boxed, hashes'.

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
