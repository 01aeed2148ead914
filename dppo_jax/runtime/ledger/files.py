"""Files of the ledger: one per recorded step.

WORKDIR/ledger/step_000050.npz is a compressed NumPy archive without pickles. It
has one member per column of `record.Record`, and `facts`, JSON in UTF-8, with
the other fields and the names of the columns, so that a lost column is noticed.
The file is written before the checkpoint of its step; a resumed run deletes the
files of steps that it will repeat.
"""

from collections.abc import Sequence
import json
import pathlib
import re
from typing import Any

import numpy as np

from dppo_jax import bounded_json, bounded_npz
from dppo_jax.runtime import activity
from dppo_jax.runtime.hosts import coordination
from dppo_jax.runtime.ledger import record as record_lib
from dppo_jax.runtime.storage.files import open_atomically, step_number

FOLDER = 'ledger'
FORMAT = 1

_NAME = re.compile(r'step_([0-9]{6,18})\.npz')
_SWITCH_ON = (
  'train with --config.ledger.every_n_steps=10 to record every tenth step; a'
  ' run that is resumed with it records the steps still to come.'
)


class LedgerWriter:
  """Writer of a run's records; without records it only cleans up."""

  def __init__(
    self, workdir: pathlib.Path, every_n_steps: int, kept_step: int | None
  ):
    """Deletes the records of steps after `kept_step`; None deletes all."""
    self.every_n_steps = every_n_steps
    self._folder = workdir / FOLDER
    if not coordination.is_primary():
      return
    last = -1 if kept_step is None else kept_step
    for step, path in _files(self._folder).items():
      if step > last:
        path.unlink()
    for unfinished in self._folder.glob('.step_*.tmp'):
      unfinished.unlink()

  def due(self, step: int) -> bool:
    """Whether the step is recorded."""
    return self.every_n_steps > 0 and step % self.every_n_steps == 0

  def write(self, record: record_lib.Record) -> pathlib.Path:
    """Path of the file of a step, after writing it atomically."""
    path = self._folder / f'step_{int(record.step[0]):06d}.npz'
    if coordination.is_primary():
      self._folder.mkdir(exist_ok=True)
      save(path, record)
    return path


def save(path: pathlib.Path, record: record_lib.Record) -> None:
  """Writes a record atomically."""
  facts = {
    'format': FORMAT,
    'trust_region': dict(record.trust_region),
    'num_columns': record.num_columns,
    'vocab_size': record.vocab_size,
    'pieces': {str(key): text for key, text in record.pieces.items()},
    'columns': [
      name for name in record_lib.COLUMNS if getattr(record, name) is not None
    ],
    **{name: list(getattr(record, name)) for name in record_lib.TEXTS},
  }
  # Text as JSON bytes: in an array of strings each takes the longest's size.
  columns = {'facts': np.frombuffer(json.dumps(facts).encode(), np.uint8)}
  for name, dtype in record_lib.COLUMNS.items():
    values = getattr(record, name)
    if values is not None:
      columns[name] = np.asarray(values, dtype)
  with open_atomically(path) as file:
    np.savez_compressed(file, allow_pickle=False, **columns)


def load(path: pathlib.Path) -> record_lib.Record:
  """Record of a file.

  Raises:
    ValueError: the file is damaged or of another version.
  """
  try:
    columns: dict[str, Any] = dict(bounded_npz.read(path))
    facts = bounded_json.parse(columns.pop('facts').tobytes())
    if facts['format'] != FORMAT:
      raise ValueError(f'format {facts["format"]}, and this reads {FORMAT}')
    named = facts.get('columns')  # Absent in files of earlier versions.
    if named is not None and set(named) != set(columns):
      other = sorted(set(named) ^ set(columns))
      raise ValueError(f'listed and stored columns differ: {other}')
    record = record_lib.Record(
      trust_region=facts['trust_region'],
      num_columns=int(facts['num_columns']),
      vocab_size=int(facts['vocab_size']),
      pieces={int(key): text for key, text in facts['pieces'].items()},
      **{name: facts[name] for name in record_lib.TEXTS},
      **columns,
    )
    _check(record)
  except Exception as error:  # A damaged archive fails in many ways.
    raise ValueError(
      f'--workdir: {path} is damaged ({type(error).__name__}: {error}); delete'
      ' it, or leave its step out with --step. Other steps are not affected.'
    ) from error
  return record


def find_steps(workdir: pathlib.Path) -> list[int]:
  """Recorded steps of a workdir, ascending."""
  return sorted(_files(workdir / FOLDER))


def load_steps(workdir: pathlib.Path, wanted: str) -> record_lib.Record:
  """Records of several steps as one.

  Args:
    workdir: of the run.
    wanted: 'all', or comma-separated step numbers.

  Raises:
    ValueError: no step or not this step is recorded, or a file is damaged.
  """
  if not workdir.is_dir():
    raise ValueError(f'--workdir: there is no folder {workdir}.')
  files = _files(workdir / FOLDER)
  if not files:
    raise ValueError(f'--workdir: {workdir} holds no ledger; {_SWITCH_ON}')
  known = sorted(files)
  if wanted == 'all':
    steps = known
  else:
    names = [name.strip() for name in wanted.split(',')]
    steps = [-1 if (s := step_number(n)) is None else s for n in names]
    missing = [n for n, s in zip(names, steps, strict=True) if s not in files]
    if missing:
      raise ValueError(
        f'--step: {", ".join(missing) or wanted!r} not recorded; recorded are'
        f' {_listed(known)}. Use those, or all.'
      )
  wanted_steps, records = sorted(set(steps)), []
  with activity.under_way('reading the ledger') as note:
    for step in wanted_steps:
      note(f'{len(records)} of {len(wanted_steps)} steps')
      records.append(load(files[step]))
  return record_lib.merge(records)


def _files(folder: pathlib.Path) -> dict[int, pathlib.Path]:
  found = {path: _NAME.fullmatch(path.name) for path in folder.glob('step_*')}
  return {int(match[1]): path for path, match in found.items() if match}


def _listed(steps: Sequence[int]) -> str:
  if len(steps) <= 12:
    return ', '.join(map(str, steps))
  return f'{len(steps)} steps from {steps[0]} to {steps[-1]}'


def _check(record: record_lib.Record) -> None:
  """Raises ValueError if columns are inconsistent."""
  rows, tokens = len(record.step), len(record.row)
  widths = {
    getattr(record, name).shape[1:]
    for name in record_lib.PAIRS
    if getattr(record, name) is not None
  }
  for name, dtype in record_lib.COLUMNS.items():
    values = getattr(record, name)
    if values is None:  # Optional; required ones are present.
      continue
    count = rows if name in record_lib.ROWS else tokens
    dims = 2 if name in record_lib.PAIRS else 1
    if values.dtype != dtype or values.ndim != dims or len(values) != count:
      raise ValueError(f'{name} is {values.dtype} {values.shape}')
  if len(widths) > 1 or rows == 0:
    raise ValueError(f'{rows} rows, pairs of widths {sorted(widths)}')
  if {len(getattr(record, name)) for name in record_lib.TEXTS} != {rows}:
    raise ValueError(f'texts of another number of rows than {rows}')
  for name, limit in (('row', rows), ('position', record.num_columns)):
    values = getattr(record, name)
    if values.size and not 0 <= values.min() <= values.max() < limit:
      raise ValueError(f'{name} not in [0, {limit})')
  place = record.row.astype(np.int64) * record.num_columns + record.position
  if (np.diff(place) <= 0).any():
    raise ValueError('tokens out of order')
  if not set(np.unique(record.token).tolist()) <= record.pieces.keys():
    raise ValueError('tokens without text')
