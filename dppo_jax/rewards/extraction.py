r"""Finds the answer in a completion: \boxed{…}, #### …, <answer>…, Answer: ….

Completions are hostile: every function here is linear in the text and neither
recurs nor searches backward.
"""

from collections.abc import Callable, Sequence

_BOXES = ('\\boxed', '\\fbox')


def matching_brace(text: str, start: int) -> int:
  r"""Index of the brace that closes the one at `start`; -1 if none does.

  Braces after a backslash are text: `\{` opens nothing.
  """
  depth, i = 0, start
  while i < len(text):
    if text[i] == '\\':
      i += 2
      continue
    if text[i] == '{':
      depth += 1
    elif text[i] == '}':
      depth -= 1
      if depth == 0:
        return i
    i += 1
  return -1


def boxes(text: str, limit: int) -> list[tuple[int, int]]:
  r"""Spans of the contents of the last `\boxed{…}`, outermost ones, in order.

  Args:
    text: a completion.
    limit: boxes looked at, from the end; those not closed count.

  Returns:
    At most `limit` pairs (start, end).
  """
  found: list[tuple[int, int]] = []
  end = len(text)
  for _ in range(limit):
    start = max(text.rfind(name, 0, end) for name in _BOXES)
    if start < 0:
      break
    end = start
    brace = text.find('{', start)
    name = text[start:brace].rstrip() if brace >= 0 else ''
    if name not in _BOXES:
      continue
    close = matching_brace(text, brace)
    if close < 0:
      continue
    # A box within this one is a part of it.
    found = [span for span in found if span[0] > close]
    found.append((brace + 1, close))
  return found[::-1]


def last_boxed(text: str) -> str | None:
  r"""What the last closed `\boxed{…}` holds, braces within it and all.

  >>> last_boxed(r'so \boxed{1}, no: \boxed{\frac{1}{2}}')
  '\\frac{1}{2}'
  """
  # A few that are not closed may follow; many are an attack on our time.
  found = boxes(text, 4)
  return text[slice(*found[-1])] if found else None


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
  """The rest of the line after the last 'Answer:', as DAPO's prompts ask.

  >>> answer_line('so Answer: 4' + chr(10) + 'Answer: **5**')
  '5'
  """
  start = text.rfind('Answer:')
  if start < 0:
    return None
  line = text[start + len('Answer:') :].lstrip(' \t').split('\n', 1)[0]
  return line.strip('*$ \t\r')


def whole(text: str) -> str | None:
  """The text itself: the completion is the answer."""
  return text


EXTRACTORS: dict[str, Callable[[str], str | None]] = {
  'whole': whole,
  'boxed': last_boxed,
  'hashes': after_hashes,
  'answer_tag': last_answer_tag,
  'answer_line': answer_line,
}


def extract(text: str, extraction: Sequence[str]) -> str | None:
  """The answer by the first extractor that finds one, stripped.

  Args:
    text: a completion.
    extraction: keys of `EXTRACTORS`, in the order they are tried.

  Returns:
    The answer; None where none finds any, or finds only space.
  """
  for name in extraction:
    answer = EXTRACTORS[name](text)
    if answer is not None and answer.strip():
      return answer.strip()
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
