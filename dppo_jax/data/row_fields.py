"""The prompt and the answer in a row of a file, or why there is none."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dppo_jax.data import rows

# What stands in the place of an answer where there is none, whatever the case.
_NO_ANSWERS = ('', 'proof', 'notfound', 'nan', 'null')


def answer(
  row: rows.Row,
  paths: Sequence[str],
  read_answer: Callable[[str], str],
) -> str | None:
  """The reference answer; None where the row says that there is none."""
  found = [
    value for path in paths if (value := rows.lookup(row, path)) is not None
  ]
  if not found and any(rows.holds_null(row, path) for path in paths):
    return None
  solution = text(_field(row, paths, 'answer'), row, 'answer')
  if solution.strip().casefold() in _NO_ANSWERS:
    return None
  try:
    read = read_answer(solution)
  except ValueError as error:
    raise ValueError(
      f'data.files: {row.where}: {error}; mend the row or leave it out.'
    ) from error
  return None if read.casefold() in _NO_ANSWERS else read


def _field(row: rows.Row, paths: Sequence[str], meaning: str) -> Any:
  """The first field there is."""
  for path in paths:
    value = rows.lookup(row, path)
    if value is not None:
      return value
  wanted = ' or '.join(map(repr, paths))
  if any(rows.holds_null(row, path) for path in paths):
    raise ValueError(
      f'data.fields.{meaning}: {row.where} holds null in {wanted}; mend the row'
      ' or leave it out.'
    )
  raise ValueError(
    f'data.fields.{meaning}: {row.where} has no field {wanted}; its fields are'
    f' {rows.field_names(row)}.'
  )


def text(value: Any, row: rows.Row, meaning: str) -> str:
  """A text or a number as text: 3.0 is '3'."""
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  if isinstance(value, bool) or not isinstance(value, (str, int, float)):
    kind = 'null' if value is None else f'a {type(value).__name__}'
    inner = ''
    if isinstance(value, Mapping):
      inner = f' with {", ".join(map(str, value))}; name one by its path'
    raise ValueError(
      f'data.fields.{meaning}: {row.where} holds {kind} there{inner}; a text or'
      ' a number is read.'
    )
  return str(value)


def _only_turn(chat: list[Any], row: rows.Row) -> Any:
  """The user's words in a chat of one turn."""
  place = f'data.fields.prompt: {row.where}'
  turns = [turn for turn in chat if isinstance(turn, Mapping)]
  if len(turns) < len(chat) or not chat:
    kinds = sorted({type(turn).__name__ for turn in chat}) or ['nothing']
    raise ValueError(
      f'{place} holds a list of {", ".join(kinds)}; a text is read, or a chat:'
      " a list of one {'role': 'user', 'content': …}."
    )
  strange = [turn for turn in turns if {'role', 'content'} - turn.keys()]
  if strange:
    raise ValueError(
      f'{place} is a chat whose turns have {", ".join(map(str, strange[0]))};'
      " 'role' and 'content' are read. Rename them, or name a field of text."
    )
  roles = [turn['role'] for turn in turns]
  if roles != ['user']:
    first = (
      ' Put a system turn into data.system_prompt' if len(roles) > 1 else ''
    )
    raise ValueError(
      f'{place} is a chat of {len(roles)} turns {roles}; one turn of the user'
      f' is read.{first or " Give the turn that role"}.'
    )
  return turns[0]['content']


def prompt(row: rows.Row, paths: Sequence[str]) -> str:
  """The user's words: of a text, or of a chat of one turn."""
  value = _field(row, paths, 'prompt')
  if isinstance(value, list):
    value = _only_turn(value, row)
  words = text(value, row, 'prompt')
  if not words.strip():
    raise ValueError(
      f'data.fields.prompt: {row.where} has an empty prompt; mend the row or'
      ' leave it out.'
    )
  return words
