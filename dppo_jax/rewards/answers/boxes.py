r"""Finds `\boxed{…}` in a completion, including adjacent and nested boxes.

Completions are hostile: the work is linear in the text, and bounded for boxes
that are never closed.
"""

import re

_BOXES = ('\\boxed', '\\fbox')
_MAX_BOXES = 16  # Boxes examined, from the end.
_MAX_UNCLOSED = 4  # Of these, boxes without a closing brace.
# The argument of a box without braces, if it is an answer.
_BARE = re.compile(
  r'\s*(-?[0-9](?:[0-9,]*[0-9])?(?:[./][0-9]+)?|[A-Za-z])(?![A-Za-z0-9])'
)
# Between boxes that give one answer together: `\boxed{3}$ and $\boxed{8}`.
_CONNECTION = re.compile(
  r'(?:[\s$,;&*、]|\\[()\[\], ;]|\\q?quad|\\text\s*\{\s*,?\s*(?:and|or)?,?\s*\}'
  r'|and|or|和|或)*(?:[A-Za-z]\s*=\s*)?'
)
_LONGEST_CONNECTION = 40
# Text around the only box of an answer: words, Markdown marks, `x =`.
_SURROUNDINGS = re.compile(r'[^0-9+/^_{}<>-]{0,200}')
_MARK = re.compile(r'[{}]|\\.', re.DOTALL)


def matching_brace(text: str, start: int) -> int:
  r"""Index of the brace that closes the one at `start`; -1 if none does.

  Braces after a backslash are text: `\{` opens nothing.
  """
  depth = 0
  for mark in _MARK.finditer(text, start):
    if mark[0] == '{':
      depth += 1
    elif mark[0] == '}':
      depth -= 1
      if depth == 0:
        return mark.start()
  return -1


class _Box:
  """Start, end and content of a box in its text."""

  def __init__(self, start: int, end: int, content: str):
    self.start, self.end, self.content = start, end, content


def _boxes(text: str) -> list[_Box]:
  """The last boxes, outermost ones, in order."""
  found: list[_Box] = []
  start, num_open = len(text), 0
  for _ in range(_MAX_BOXES):
    start = max(text.rfind(name, 0, start) for name in _BOXES)
    if start < 0 or num_open == _MAX_UNCLOSED:
      break
    name = next(name for name in _BOXES if text.startswith(name, start))
    after = start + len(name)
    brace = after
    while text[brace : brace + 1].isspace():
      brace += 1
    if text.startswith('{', brace):
      close = matching_brace(text, brace)
      if close < 0:
        num_open += 1
        continue
      # A box within this one is a part of it.
      found = [box for box in found if box.start > close]
      found.append(_Box(start, close + 1, text[brace + 1 : close]))
    elif bare := _BARE.match(text, after):
      found.append(_Box(start, bare.end(), bare[1]))
  return [box for box in found[::-1] if box.content.strip()]


def _last_run(text: str) -> list[_Box]:
  """The last box, and the boxes before it that are joined to it."""
  boxes = _boxes(text)
  run = boxes[-1:]
  for box in boxes[-2::-1]:
    gap = text[box.end : run[0].start]
    if len(gap) > _LONGEST_CONNECTION or not _CONNECTION.fullmatch(gap):
      break
    run.insert(0, box)
  return run


def _joined(run: list[_Box], depth: int) -> str:
  pieces = [unbox(box.content, depth) for box in run]
  # The same answer repeated is one answer.
  same = all(piece.strip() == pieces[0].strip() for piece in pieces)
  return pieces[0] if same else ', '.join(pieces)


def last_boxed(text: str) -> str | None:
  r"""Content of the last closed `\boxed{…}`, nested braces included.

  Boxes joined by 'and', 'or', commas or space only are one list; empty boxes
  are skipped; `\boxed 3` is read, too.

  >>> last_boxed(r'so \boxed{1}, no: \boxed{\frac{1}{2}}')
  '\\frac{1}{2}'
  >>> last_boxed(r'They are $\boxed{3}$ and $\boxed{8}$.')
  '3, 8'
  """
  run = _last_run(text)
  return _joined(run, 0) if run else None


def unbox(answer: str, depth: int = 0) -> str:
  r"""Content of a box within an answer, if the answer is only that box.

  >>> unbox(r'$\boxed{17}$.'), unbox(r'8 or \boxed{17}')
  ('17', '8 or \\boxed{17}')
  """
  if depth > 3 or not any(name in answer for name in _BOXES):
    return answer
  run = _last_run(answer)
  if not run:
    return answer
  around = answer[: run[0].start] + answer[run[-1].end :]
  return _joined(run, depth + 1) if _SURROUNDINGS.fullmatch(around) else answer
