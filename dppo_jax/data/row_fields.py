"""Prompt and reference answer of a row of a file."""

from collections.abc import Mapping, Sequence
from typing import Any

from dppo_jax.data import choices, fields, record_files
from dppo_jax.data.catalog import Source
from dppo_jax.data.record_files import RawRecord

# Placeholders for a missing answer, in any case.
_NO_ANSWERS = ('', 'proof', 'notfound', 'nan', 'null')


def problem(row: RawRecord, source: Source) -> tuple[str, str | None]:
  """Prompt of a row, with its multiple-choice options, and reference answer.

  Args:
    row: of a file.
    source: its fields, and how the answer is read.

  Returns:
    Prompt and reference answer; the answer is None if the row has none.

  Raises:
    ValueError: a field is missing or has a wrong type; the message has the
      file, the row and its fields.
  """
  prompt = _prompt(row, source.prompt)
  value = _answer(row, source.answer)
  listed = [
    found
    for path in source.options
    if (found := record_files.lookup(row, path)) is not None
  ]
  if value is None:
    return prompt, None
  meaning = 'options' if listed else 'answer'
  try:
    if not listed:
      return prompt, _read(value, row, source)
    if isinstance(listed[0], str):  # Text that already has the letters.
      return f'{prompt}\n{listed[0]}', choices.read_answer(value, ())
    options = choices.read_options(listed[0])
    letter = choices.read_answer(value, options)
    return f'{prompt}\n{choices.render(options)}', letter
  except ValueError as error:
    if str(error).startswith('data.'):
      raise
    key = 'files' if meaning == 'answer' else 'fields.options'
    raise ValueError(
      f'data.{key}: {row.where}: {error}; fix the row or remove it.'
    ) from error


def _answer(row: RawRecord, paths: Sequence[str]) -> Any:
  """Value of the answer's field; None if it is null."""
  found = [
    value
    for path in paths
    if (value := record_files.lookup(row, path)) is not None
  ]
  if not found and any(record_files.holds_null(row, path) for path in paths):
    return None
  return _field(row, paths, 'answer')


def _read(value: Any, row: RawRecord, source: Source) -> str | None:
  """Reference answer of a value or a list of values; None if it has none."""
  entries = value if isinstance(value, list) and value else [value]
  read = []
  for entry in entries:
    text = fields.text_of(entry, row, 'answer')
    if text.strip().casefold() in _NO_ANSWERS:
      return None
    read.append(source.read_answer(text))
  if any(text.casefold() in _NO_ANSWERS for text in read):
    return None
  return ', '.join(read)


def _field(row: RawRecord, paths: Sequence[str], meaning: str) -> Any:
  """Value of the first field present; the text of a template."""
  for path in paths:
    if meaning == 'prompt' and fields.is_template(path):
      value = fields.fill(row, path)
    else:
      value = record_files.lookup(row, path)
    if value is not None:
      return value
  wanted = ' or '.join(map(repr, paths))
  if any(record_files.holds_null(row, path) for path in paths):
    raise ValueError(
      f'data.fields.{meaning}: {row.where} holds null in {wanted}; fix the row'
      ' or remove it.'
    )
  raise ValueError(
    f'data.fields.{meaning}: {row.where} has no field {wanted}; its fields are'
    f' {record_files.field_names(row)}.'
  )


def _only_turn(chat: list[Any], row: RawRecord) -> Any:
  """Content of the user's turn, in a chat of one turn."""
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


def _prompt(row: RawRecord, paths: Sequence[str]) -> str:
  """Text of a prompt: a text field, or a chat of one turn."""
  value = _field(row, paths, 'prompt')
  if isinstance(value, list):
    value = _only_turn(value, row)
  words = fields.text_of(value, row, 'prompt')
  if not words.strip():
    raise ValueError(
      f'data.fields.prompt: {row.where} has an empty prompt; fix the row or'
      ' remove it.'
    )
  return words
