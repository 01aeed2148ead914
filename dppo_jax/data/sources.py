"""Data sets of a run, read from their published files.

A source is an entry of `catalog.SOURCES`: where it is published, and the
meaning of its fields. Only GSM8K is downloaded, by TFDS's own builder.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

from dppo_jax import base, suggestions
from dppo_jax.data import downloads, record_files, row_fields
from dppo_jax.data import fields as fields_lib
from dppo_jax.data.catalog import SOURCES, Source

_FOLDER = 'files'  # Below data.data_dir: one folder per source.
_MAX_NAMES = 5  # Files listed in a message.


# Key of data.fields -> attribute of `Source` that it replaces.
FIELDS = {
  'prompt': 'prompt',
  'answer': 'answer',
  'options': 'options',
  'level': 'level',
  'source': 'origin',
  'extra': 'extra',
}


class Loaded(NamedTuple):
  """Examples of a source, with duplicate prompts dropped.

  Attributes:
    examples: 'example_id' (index of the row, over all files), 'prompt',
      'answer' and, if the source has them, 'level' and 'source', all texts;
      and the row's extra fields, see `fields.keep_extra`.
    num_duplicates: rows dropped because an earlier one has the same prompt.
    num_conflicts: duplicates with a different answer.
    num_unanswered: rows dropped because they have no reference answer: null,
      NaN, empty, 'proof' or 'notfound'.
    notes: sentences on what else was dropped, to report.
  """

  examples: tuple[base.Example, ...]
  num_duplicates: int
  num_conflicts: int
  num_unanswered: int
  notes: tuple[str, ...] = ()


def find_source(
  name: str,
  fields: Mapping[str, str],
  overrides: Mapping[str, str] | None = None,
) -> Source:
  """Entry of `SOURCES`, with the user's fields.

  Args:
    name: a key of `SOURCES`.
    fields: keys of `FIELDS`, each a field or ''; used for 'rows' only.
    overrides: the same, for any source; '' changes nothing.

  Raises:
    ValueError: no such source; the message suggests the nearest.
  """
  if name not in SOURCES:
    known = ['task', *SOURCES]
    raise ValueError(
      f'data.source: unknown {name!r}{suggestions.suggest(name, known)}'
    )
  wanted = dict(fields) if name == 'rows' else {}
  wanted |= fields_lib.named(overrides or {})
  changes: dict[str, Any] = {
    FIELDS[key]: path if key == 'extra' else (path,) if path else ()
    for key, path in wanted.items()
  }
  return dataclasses.replace(SOURCES[name], **changes)


def split_names(text: str) -> list[str]:
  """Names of several sources: 'aime_2024, aime_2025'."""
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
  """Files of a source, without reading them; arguments as in `load_source`.

  Returns:
    The files; none for a source that TFDS prepares.

  Raises:
    ValueError: the files are missing.
  """
  source = find_source(name, fields, overrides)
  if not files and source.splits and split not in source.splits:
    raise ValueError(
      f'data.source: {name!r} has no split {split!r}'
      f'{suggestions.suggest(split, list(source.splits))} Or name a file in'
      f' {key}.'
    )
  folder = pathlib.Path(data_dir).expanduser() / _FOLDER / name
  found = record_files.find_files(files, folder, split if source.splits else '')
  unfit = [] if found or files else _unfit(source, folder)
  if not found and (files or unfit or source.prepared is None):
    missing = repr(files) if files else f'file of split {split!r} in {folder}'
    raise ValueError(
      f'{key}: no {missing} for the source {name!r}{_there(unfit, split)}.'
      f' {_get(source, folder)}; or name files in {key};'
      f' {", ".join(record_files.SUFFIXES)} are read.'
    )
  return list(found)


def _get(source: Source, folder: pathlib.Path) -> str:
  """Tells how the files of a source come into its folder."""
  if source.repository is None:
    return f'Put yours into {folder}'
  command = downloads.data_command(source.repository, folder)
  return f'Published: {source.published}. Get them: {command}'


def _unfit(source: Source, folder: pathlib.Path) -> list[str]:
  """Names of the files in a folder, if none of them has a split's name."""
  named = [
    path
    for split in source.splits
    for path in record_files.find_files('', folder, split)
  ]
  if named:
    return []
  there = [path for path in folder.glob('**/*') if path.is_file()]
  return sorted(path.relative_to(folder).as_posix() for path in there)


def _there(unfit: Sequence[str], split: str) -> str:
  if not unfit:
    return ''
  shown = ', '.join(unfit[:_MAX_NAMES])
  more = f' and {len(unfit) - _MAX_NAMES} more' if unfit[_MAX_NAMES:] else ''
  return (
    f'; the folder has {shown}{more}: the name of the file, or of its folder,'
    f' must contain {split!r} as a separate word, such as {split}.jsonl'
  )


def load_source(
  name: str,
  split: str,
  files: str,
  data_dir: str | os.PathLike[str],
  fields: Mapping[str, str],
  key: str,
  overrides: Mapping[str, str] | None = None,
) -> Loaded:
  """Examples of a source.

  Args:
    name: a key of `SOURCES`.
    split: 'train' or 'test', for a source that has splits.
    files: a path or glob; '' for the files in `data_dir`/files/`name`.
    data_dir: root folder of data sets; `~` is the home folder.
    fields: see `find_source`.
    key: config path of `files`, for error messages.
    overrides: see `find_source`.

  Raises:
    ValueError: the files are missing (the message says where they are published
      and where to put them) or cannot be read, or a row lacks a field (it has
      the file, the row and its fields).
  """
  source = find_source(name, fields, overrides)
  found = locate(name, split, files, data_dir, fields, key, overrides)
  if not found and source.prepared is not None:
    home = pathlib.Path(data_dir).expanduser()
    place = f'{name}, split {split}'
    prepared = source.prepared(split, home)
    stream = (
      record_files.RawRecord(values, f'{place}, row {number}')
      for number, values in enumerate(prepared, 1)
    )
    return _collect(source, stream)
  columns = _columns(source)
  return _collect(
    source,
    (row for path in found for row in record_files.read_rows(path, columns)),
  )


def _columns(source: Source) -> list[str] | None:
  """Parquet columns to read; None for all."""
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


def _collect(
  source: Source, stream: Iterator[record_files.RawRecord]
) -> Loaded:
  """Examples of the rows, the first row of each prompt only."""
  extra = fields_lib.parse_extra(source.extra)
  examples: dict[str, dict[str, Any]] = {}
  left_out: collections.Counter[str] = collections.Counter()
  num_duplicates = num_conflicts = num_unanswered = 0
  for number, row in enumerate(stream):
    prompt, answer = row_fields.problem(row, source)
    if answer is None:
      num_unanswered += 1
      continue
    if prompt in examples:
      num_duplicates += 1
      num_conflicts += answer != examples[prompt]['answer']
      continue
    example = {'example_id': number, 'prompt': prompt, 'answer': answer}
    # The prompt is not kept again as an extra field.
    own = [path for path in source.prompt if row.values.get(path) == prompt]
    for key, paths in (('level', source.level), ('source', source.origin)):
      values = [record_files.lookup(row, path) for path in paths]
      there = [value for value in values if value is not None]
      if there:
        example[key] = fields_lib.text_of(there[0], row, key)
        own.append(key)
    kept, lost = fields_lib.keep_extra(row, extra, own)
    left_out.update(lost)
    examples[prompt] = {**kept, **example}
  if num_unanswered and not examples:
    raise ValueError(
      f'data.fields.answer: none of {num_unanswered:,} rows has a reference'
      f' answer in {" or ".join(map(repr, source.answer))} (null, NaN, no text,'
      " 'proof' or 'notfound'); name the field that holds it."
    )
  notes = tuple(
    f'field {name!r} of {count:,} rows was dropped (too long, or not JSON)'
    for name, count in sorted(left_out.items())
  )
  return Loaded(
    tuple(examples.values()),
    num_duplicates,
    num_conflicts,
    num_unanswered,
    notes,
  )
