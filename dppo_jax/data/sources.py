"""The data sets a run can draw on, from the files their publishers offer.

A source is a row of `SOURCES`: where it is published and which of its fields
mean what. Nothing is downloaded, but for GSM8K by TFDS's own builder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

from dppo_jax import base
from dppo_jax.data import answers, builder, row_fields, rows, tasks

_FOLDER = 'files'  # Below data.data_dir: one folder a source.
_MAX_NAMES = 5  # Files that a message names.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """One row of the table; a field is its path, and the first there counts.

  Attributes:
    published: where its files are, to say when they are not here.
    splits: that its files name; () where it is one set, whatever the split.
    prompt: fields of the problem: text, or the messages of a chat.
    answer: fields of the reference answer, or of a solution that holds it.
    level: fields of the difficulty.
    origin: fields of what the row was taken from, or is about.
    read_answer: from the text of `answer` to the reference answer.
    prepared: (split, data_dir) -> rows, where no file is there; or None.
  """

  published: str
  splits: tuple[str, ...]
  prompt: tuple[str, ...]
  answer: tuple[str, ...]
  level: tuple[str, ...]
  origin: tuple[str, ...]
  read_answer: Callable[[str], str]
  prepared: Callable[[str, pathlib.Path], Iterator[Mapping[str, Any]]] | None


SOURCES: Mapping[str, Source] = {
  'gsm8k': Source(
    published='github.com/openai/grade-school-math (grade_school_math/data/'
    'train.jsonl, test.jsonl), or openai/gsm8k on Hugging Face (main/)',
    splits=('train', 'test'),
    prompt=('question',),
    answer=('answer',),
    level=(),
    origin=(),
    read_answer=answers.after_hashes,
    prepared=builder.load_gsm8k,
  ),
  # The tar of Hendrycks et al. (a JSON file a problem) and its parquet copies.
  'math': Source(
    published='EleutherAI/hendrycks_math or DigitalLearningGmbH/MATH-lighteval'
    ' on Hugging Face (train and test, parquet)',
    splits=('train', 'test'),
    prompt=('problem',),
    answer=('solution',),
    level=('level',),
    origin=('type', 'subject'),
    read_answer=answers.last_boxed,
    prepared=None,
  ),
  'math_500': Source(
    published='HuggingFaceH4/MATH-500 on Hugging Face (test.jsonl)',
    splits=(),
    prompt=('problem',),
    answer=('answer',),
    level=('level',),
    origin=('subject',),
    read_answer=answers.as_is,
    prepared=None,
  ),
  'dapo_math_17k': Source(
    published='BytedTsinghua-SIA/DAPO-Math-17k on Hugging Face'
    ' (data/dapo-math-17k.parquet)',
    splits=(),
    prompt=('prompt',),
    answer=('reward_model.ground_truth',),
    level=(),
    origin=('data_source',),
    read_answer=answers.as_is,
    prepared=None,
  ),
  'aime_2024': Source(
    published='HuggingFaceH4/aime_2024 (data/train-*.parquet) or'
    ' Maxwell-Jia/AIME_2024 (aime_2024_problems.parquet) on Hugging Face',
    splits=(),
    prompt=('problem', 'Problem'),
    answer=('answer', 'Answer'),
    level=(),
    origin=(),
    read_answer=answers.integer,
    prepared=None,
  ),
  'aime_2025': Source(
    published='math-ai/aime25 (test.jsonl) or opencompass/AIME2025'
    ' (aime2025-I.jsonl, aime2025-II.jsonl) on Hugging Face',
    splits=(),
    prompt=('problem', 'question'),
    answer=('answer',),
    level=(),
    origin=(),
    read_answer=answers.integer,
    prepared=None,
  ),
  # Files of the user's own; data.fields says which field means what.
  'rows': Source(
    published='by you',
    splits=(),
    prompt=('prompt',),
    answer=('answer',),
    level=(),
    origin=(),
    read_answer=answers.as_is,
    prepared=None,
  ),
}


class Loaded(NamedTuple):
  """What a source holds, every prompt once.

  Attributes:
    examples: 'example_id' (number of the row, over all its files), 'prompt',
      'answer' and, where the source has them, 'level' and 'source'; texts.
    num_duplicates: rows left out because an earlier one has their prompt.
    num_conflicts: those of them that have another answer.
    num_unanswered: rows left out because they have no reference answer: null,
      NaN, no text, 'proof' or 'notfound'.
  """

  examples: tuple[base.Example, ...]
  num_duplicates: int
  num_conflicts: int
  num_unanswered: int


def find_source(name: str, fields: Mapping[str, str]) -> Source:
  """The row of `SOURCES`, with the user's fields where they are the user's.

  Args:
    name: a key of `SOURCES`.
    fields: 'prompt', 'answer', 'level' and 'source', each a field or ''; for
      'rows' only.

  Raises:
    ValueError: there is no such source; names the nearest.
  """
  if name not in SOURCES:
    known = ['task', *SOURCES]
    raise ValueError(
      f'data.source: unknown {name!r}{tasks.suggest(name, known)}'
    )
  if name != 'rows':
    return SOURCES[name]
  wanted = {key: (path,) if path else () for key, path in fields.items()}
  return dataclasses.replace(
    SOURCES[name],
    prompt=wanted['prompt'],
    answer=wanted['answer'],
    level=wanted['level'],
    origin=wanted['source'],
  )


def locate(
  name: str,
  split: str,
  files: str,
  data_dir: str | os.PathLike[str],
  fields: Mapping[str, str],
  key: str,
) -> list[pathlib.Path]:
  """Finds the files of a source and reads none; arguments of `load_source`.

  Returns:
    The files; none of a source that TFDS prepares.

  Raises:
    ValueError: they are missing.
  """
  source = find_source(name, fields)
  if not files and source.splits and split not in source.splits:
    raise ValueError(
      f'data.source: {name!r} has no split {split!r}'
      f'{tasks.suggest(split, list(source.splits))} Or name a file in {key}.'
    )
  folder = pathlib.Path(data_dir).expanduser() / _FOLDER / name
  found = rows.find_files(files, folder, split if source.splits else '')
  unfit = [] if found or files else _unfit(source, folder)
  if not found and (files or unfit or source.prepared is None):
    missing = repr(files) if files else f'file of split {split!r} in {folder}'
    raise ValueError(
      f'{key}: no {missing} for the source {name!r}{_there(unfit, split)}.'
      f' Published: {source.published}. Put the files into {folder}, or name'
      f' them in {key}; {", ".join(rows.SUFFIXES)} are read.'
    )
  return list(found)


def _unfit(source: Source, folder: pathlib.Path) -> list[str]:
  """Names of the files in a folder, where none of them names a split."""
  named = [
    path
    for split in source.splits
    for path in rows.find_files('', folder, split)
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
    f'; there lie {shown}{more}: the name, or that of a folder, must have'
    f' {split!r} as a word of its own, as {split}.jsonl'
  )


def load_source(
  name: str,
  split: str,
  files: str,
  data_dir: str | os.PathLike[str],
  fields: Mapping[str, str],
  key: str,
) -> Loaded:
  """Reads a source.

  Args:
    name: a key of `SOURCES`.
    split: 'train' or 'test', of a source that has splits.
    files: a path or glob; '' for what lies in `data_dir`/files/`name`.
    data_dir: where data sets live; `~` is the home folder.
    fields: of `find_source`.
    key: of the config, that names `files`; for error messages.

  Raises:
    ValueError: the files are missing (says where they are published and where
      to put them) or cannot be read, or a row lacks a field (names file, row
      and the fields it has).
  """
  source = find_source(name, fields)
  found = locate(name, split, files, data_dir, fields, key)
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


def _columns(source: Source) -> list[str]:
  paths = (*source.prompt, *source.answer, *source.level, *source.origin)
  return [name for path in paths for name in (path, path.split('.')[0])]


def _collect(source: Source, stream: Iterator[rows.Row]) -> Loaded:
  """Reads every row and keeps the first one of each prompt."""
  examples: dict[str, dict[str, Any]] = {}
  num_duplicates = num_conflicts = num_unanswered = 0
  for number, row in enumerate(stream):
    prompt = row_fields.prompt(row, source.prompt)
    answer = row_fields.answer(row, source.answer, source.read_answer)
    if answer is None:
      num_unanswered += 1
      continue
    if prompt in examples:
      num_duplicates += 1
      num_conflicts += answer != examples[prompt]['answer']
      continue
    example = {'example_id': number, 'prompt': prompt, 'answer': answer}
    for key, paths in (('level', source.level), ('source', source.origin)):
      values = [rows.lookup(row, path) for path in paths]
      there = [value for value in values if value is not None]
      if there:
        example[key] = row_fields.text(there[0], row, key)
    examples[prompt] = example
  if num_unanswered and not examples:
    raise ValueError(
      f'data.fields.answer: none of {num_unanswered:,} rows has a reference'
      f' answer in {" or ".join(map(repr, source.answer))} (null, NaN, no text,'
      " 'proof' or 'notfound'); name the field that holds it."
    )
  return Loaded(
    tuple(examples.values()), num_duplicates, num_conflicts, num_unanswered
  )
