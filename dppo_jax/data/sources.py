"""The data sets a run can draw on, from the files their publishers offer.

A source is a row of `catalog.SOURCES`: where it is published and which of its
fields mean what. Nothing is downloaded, but for GSM8K by TFDS's own builder.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

from dppo_jax import base
from dppo_jax.data import choices, rows, tasks
from dppo_jax.data import fields as fields_lib
from dppo_jax.data.catalog import SOURCES, Source

_FOLDER = 'files'  # Below data.data_dir: one folder a source.


# Of section data.fields, and the attribute of a source that each replaces.
FIELDS = {
  'prompt': 'prompt',
  'answer': 'answer',
  'options': 'options',
  'level': 'level',
  'source': 'origin',
  'extra': 'extra',
}


class Loaded(NamedTuple):
  """What a source holds, every prompt once.

  Attributes:
    examples: 'example_id' (number of the row, over all its files), 'prompt',
      'answer' and, where the source has them, 'level' and 'source'; texts. And
      the other fields of the row, see `fields.carried`.
    num_duplicates: rows left out because an earlier one has their prompt.
    num_conflicts: those of them that have another answer.
    notes: sentences on what else was left out, to be told.
  """

  examples: tuple[base.Example, ...]
  num_duplicates: int
  num_conflicts: int
  notes: tuple[str, ...] = ()


def find_source(
  name: str,
  fields: Mapping[str, str],
  overrides: Mapping[str, str] | None = None,
) -> Source:
  """The row of `SOURCES`, with the user's fields where they are the user's.

  Args:
    name: a key of `SOURCES`.
    fields: keys of `FIELDS`, each a field or ''; for 'rows' only.
    overrides: likewise, for this source whichever it is; '' changes nothing.

  Raises:
    ValueError: there is no such source; names the nearest.
  """
  if name not in SOURCES:
    known = ['task', *SOURCES]
    raise ValueError(
      f'data.source: unknown {name!r}{tasks.suggest(name, known)}'
    )
  wanted = dict(fields) if name == 'rows' else {}
  wanted |= fields_lib.named(overrides or {})
  changes: dict[str, Any] = {
    FIELDS[key]: path if key == 'extra' else (path,) if path else ()
    for key, path in wanted.items()
  }
  return dataclasses.replace(SOURCES[name], **changes)


def split_names(text: str) -> list[str]:
  """The names of several sources: 'aime_2024, aime_2025'."""
  return [name.strip() for name in text.split(',')]


def locate(
  name: str,
  split: str,
  files: str,
  data_dir: str | os.PathLike[str],
  fields: Mapping[str, str],
  key: str,
  overrides: Mapping[str, str] | None = None,
) -> list[pathlib.Path]:
  """Finds the files of a source and reads none; arguments of `load_source`.

  Returns:
    The files; none of a source that TFDS prepares.

  Raises:
    ValueError: they are missing.
  """
  source = find_source(name, fields, overrides)
  if not files and source.splits and split not in source.splits:
    raise ValueError(
      f'data.source: {name!r} has no split {split!r}'
      f'{tasks.suggest(split, list(source.splits))} Or name a file in {key}.'
    )
  folder = pathlib.Path(data_dir).expanduser() / _FOLDER / name
  found = rows.find_files(files, folder, split if source.splits else '')
  if not found and (files or source.prepared is None):
    missing = repr(files) if files else f'file of split {split!r} in {folder}'
    raise ValueError(
      f'{key}: no {missing} for the source {name!r}. Published:'
      f' {source.published}. Put the files into {folder}, or name them in'
      f' {key}; {", ".join(rows.SUFFIXES)} are read.'
    )
  return list(found)


def load_source(
  name: str,
  split: str,
  files: str,
  data_dir: str | os.PathLike[str],
  fields: Mapping[str, str],
  key: str,
  overrides: Mapping[str, str] | None = None,
) -> Loaded:
  """Reads a source.

  Args:
    name: a key of `SOURCES`.
    split: 'train' or 'test', of a source that has splits.
    files: a path or glob; '' for what lies in `data_dir`/files/`name`.
    data_dir: where data sets live; `~` is the home folder.
    fields: of `find_source`.
    key: of the config, that names `files`; for error messages.
    overrides: of `find_source`.

  Raises:
    ValueError: the files are missing (says where they are published and where
      to put them) or cannot be read, or a row lacks a field (names file, row
      and the fields it has).
  """
  source = find_source(name, fields, overrides)
  found = locate(name, split, files, data_dir, fields, key, overrides)
  if not found and source.prepared is not None:
    home = pathlib.Path(data_dir).expanduser()
    place = f'{name}, split {split}'
    prepared = source.prepared(split, home)
    stream = (
      rows.Row(values, f'{place}, row {number}')
      for number, values in enumerate(prepared, 1)
    )
    return _collect(source, stream)
  columns = _columns(source)
  return _collect(
    source, (row for path in found for row in rows.read_rows(path, columns))
  )


def _columns(source: Source) -> list[str] | None:
  """Columns to read of a parquet file; None for all of them."""
  extra = [path for _, path in fields_lib.parse_extra(source.extra)]
  if fields_lib.EVERY in extra:
    return None
  paths = (
    *source.prompt,
    *source.answer,
    *source.options,
    *source.level,
    *source.origin,
    *extra,
  )
  return [name for path in paths for name in fields_lib.columns(path)]


def _collect(source: Source, stream: Iterator[rows.Row]) -> Loaded:
  """Reads every row and keeps the first one of each prompt."""
  extra = fields_lib.parse_extra(source.extra)
  examples: dict[str, dict[str, Any]] = {}
  left_out: collections.Counter[str] = collections.Counter()
  num_duplicates = num_conflicts = 0
  for number, row in enumerate(stream):
    prompt, answer = _problem(row, source)
    if prompt in examples:
      num_duplicates += 1
      num_conflicts += answer != examples[prompt]['answer']
      continue
    example = {'example_id': number, 'prompt': prompt, 'answer': answer}
    # The whole prompt need not travel twice.
    own = [path for path in source.prompt if row.values.get(path) == prompt]
    for key, paths in (('level', source.level), ('source', source.origin)):
      values = [rows.lookup(row, path) for path in paths]
      there = [value for value in values if value is not None]
      if there:
        example[key] = fields_lib.text_of(there[0], row, key)
        own.append(key)
    carried, lost = fields_lib.carried(row, extra, own)
    left_out.update(lost)
    examples[prompt] = {**carried, **example}
  notes = tuple(
    f'field {name!r} of {count:,} rows did not travel (too long, or no JSON)'
    for name, count in sorted(left_out.items())
  )
  return Loaded(tuple(examples.values()), num_duplicates, num_conflicts, notes)


def _problem(row: rows.Row, source: Source) -> tuple[str, str]:
  """The prompt of a row, with the options of a choice, and the answer."""
  prompt = _prompt(row, source.prompt)
  value = _field(row, source.answer, 'answer')
  listed = [rows.lookup(row, path) for path in source.options]
  listed = [value for value in listed if value is not None]
  meaning = 'answer'
  try:
    if not listed:
      entries = value if isinstance(value, list) and value else [value]
      texts = [fields_lib.text_of(each, row, 'answer') for each in entries]
      return prompt, ', '.join(map(source.read_answer, texts))
    meaning = 'options'
    if isinstance(listed[0], str):  # A text that names the letters itself.
      return f'{prompt}\n{listed[0]}', choices.read_answer(value, ())
    options = choices.read_options(listed[0])
    letter = choices.read_answer(value, options)
    return f'{prompt}\n{choices.render(options)}', letter
  except ValueError as error:
    if str(error).startswith('data.'):
      raise
    key = 'files' if meaning == 'answer' else 'fields.options'
    raise ValueError(
      f'data.{key}: {row.where}: {error}; mend the row or leave it out.'
    ) from error


def _field(row: rows.Row, paths: Sequence[str], meaning: str) -> Any:
  """The first field there is; of a template, its text."""
  for path in paths:
    if meaning == 'prompt' and fields_lib.is_template(path):
      value = fields_lib.fill(row, path)
    else:
      value = rows.lookup(row, path)
    if value is not None:
      return value
  wanted = ' or '.join(map(repr, paths))
  raise ValueError(
    f'data.fields.{meaning}: {row.where} has no field {wanted}; its fields are'
    f' {rows.field_names(row)}.'
  )


def _prompt(row: rows.Row, paths: Sequence[str]) -> str:
  """The user's words: of a text, or of a chat of one turn."""
  value = _field(row, paths, 'prompt')
  if isinstance(value, list):
    turns = [turn for turn in value if isinstance(turn, Mapping)]
    if len(value) != 1 or [turn.get('role') for turn in turns] != ['user']:
      roles = [turn.get('role') for turn in turns]
      raise ValueError(
        f'data.fields.prompt: {row.where} is a chat of {len(value)} turns'
        f' {roles}; one turn of the user is read. Put a system turn into'
        ' data.system_prompt.'
      )
    value = turns[0].get('content')
  text = fields_lib.text_of(value, row, 'prompt')
  if not text.strip():
    raise ValueError(
      f'data.fields.prompt: {row.where} has an empty prompt; mend the row or'
      ' leave it out.'
    )
  return text
