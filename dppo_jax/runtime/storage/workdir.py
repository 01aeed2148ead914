"""Workdir of a run, for one process: its lock, and the config in it.

See `shared_workdir` for several hosts.
"""

from collections.abc import Collection, Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import re
from typing import Any

from dppo_jax import bounded_json
from dppo_jax.commands import entry_points
from dppo_jax.runtime.storage import metrics_log
from dppo_jax.runtime.storage.files import step_number, write_atomically

CONFIG = 'config.json'
INPUTS = 'inputs.json'  # Hashes of the files that the run reads.
CHECKPOINTS = 'checkpoints'
LOCK = 'lock'
# One of them is in every folder that a run has begun in.
_OF_A_RUN = (CONFIG, LOCK, CHECKPOINTS, metrics_log.METRICS_FILE)
_LOGS = ('.err', '.log', '.out', '.txt')
_MAX_SHOWN = 3

# Keys that may change when a run is resumed: they do not affect its numbers.
FREE_KEYS = (
  'checkpoints.keep',
  'compilation_cache',
  'data.data_dir',
  'ledger',
  'profile',
  'rewards.max_failed',
  'rewards.num_workers',
  'sft.cache',
  'writers',
)
# Keys that are paths. The files are compared by content, once they have been
# read; see `programs.inputs`.
DATA_PATHS = ('data.files', 'evaluation.files')
FOLDER_PATHS = (
  'data.tokenizer',
  'lora.pretrained',
  'model.pretrained',
  'rewards.model',
)
_MIXTURE = 'data.mixture'  # Rows of (source, files, weight).
_LENGTH = 'num_steps'


def _check_local(workdir: str | os.PathLike[str]) -> None:
  """Refuses 'gs://…', of which pathlib would make a folder named 'gs:'."""
  if re.match(r'[a-z][a-z0-9+.-]+:/', os.fspath(workdir)):
    raise ValueError(
      f'--workdir: got {os.fspath(workdir)!r}, an address. A run locks its'
      ' folder, appends to files and renames them, which object stores do not'
      ' offer. Mount the bucket (gcsfuse, s3fs) and name the mounted folder, or'
      ' name a local folder and copy it afterwards.'
    )


def open_workdir(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Path of the folder, after creating it and checking that it is writable.

  Raises:
    ValueError: it is not writable, or is an address such as gs://….
  """
  _check_local(workdir)
  folder = pathlib.Path(workdir).expanduser().absolute()
  probe = folder / '.writable'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    probe.write_text('')
    probe.unlink()
  except OSError as error:
    raise ValueError(
      f'--workdir: {folder} is not writable ({error.strerror}); choose a'
      ' folder you own, or make room.'
    ) from error
  return folder


def check_empty(workdir: str | os.PathLike[str]) -> None:
  """Refuses a folder with files of anything but a run.

  Logs and hidden files may be there before a run: a job's output, say.

  Args:
    workdir: may not exist.

  Raises:
    ValueError: names some of the files.
  """
  _check_local(workdir)
  folder = pathlib.Path(workdir).expanduser().absolute()
  if not folder.is_dir() or any((folder / name).exists() for name in _OF_A_RUN):
    return
  others = sorted(
    path.name
    for path in folder.iterdir()
    if not path.name.startswith('.') and path.suffix not in _LOGS
  )
  if others:
    shown = ', '.join(others[:_MAX_SHOWN])
    more = len(others) - _MAX_SHOWN
    shown += f' and {more} more' if more > 0 else ''
    raise ValueError(
      f'--workdir: {folder} holds no run, and other files ({shown}); name a'
      ' folder that is new or empty.'
    )


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Lock against a second training process in the same folder.

  It is released when the process ends in any way.

  Raises:
    ValueError: another process holds it.
  """
  with (workdir / LOCK).open('w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise ValueError(
        f'--workdir: another process is training in {workdir}; wait for it or'
        ' choose another folder.'
      ) from error
    yield


def has_begun(workdir: pathlib.Path) -> bool:
  """Whether a run has saved a checkpoint in this folder."""
  names = [path.name for path in (workdir / CHECKPOINTS).glob('*')]
  return any(step_number(name) is not None for name in names)


def last_recorded(workdir: pathlib.Path) -> int:
  """Last train step with a line of metrics; 0 without any."""
  rows = metrics_log.read_rows(workdir / metrics_log.METRICS_FILE)
  return max((row['step'] for row in rows), default=0)


def _check_whole(workdir: pathlib.Path) -> None:
  """Raises if a part of a run is missing, instead of starting again.

  A run records its first step after its first complete checkpoint. Records
  without a checkpoint thus belong to a run whose checkpoints were removed, and
  a new start would overwrite them.
  """
  begun = has_begun(workdir)
  if begun and not (workdir / CONFIG).exists():
    raise ValueError(
      f'--workdir: {workdir} holds checkpoints and no {CONFIG}, so nothing says'
      ' which run they are of. Restore that file from a copy, or choose'
      ' another --workdir.'
    )
  last = 0 if begun else last_recorded(workdir)
  if last:
    raise ValueError(
      f'--workdir: {workdir} holds the records of {last} steps and no whole'
      f' checkpoint in {CHECKPOINTS}/, and a run that begins there would'
      ' overwrite them. Restore that folder from a copy to go on, or choose'
      f' another --workdir; to begin anew here, move'
      f' {metrics_log.METRICS_FILE} away first.'
    )


def check_config(
  workdir: pathlib.Path, resolved: dict[str, Any], *, extend: bool = False
) -> list[str]:
  """Records the config of a new run, or compares it with the recorded one.

  The config of a run without a checkpoint is replaced. Paths may change in a
  resumed run, since files are compared by content.

  Args:
    workdir: of the run.
    resolved: its config.
    extend: allows more `num_steps` than before.

  Returns:
    Allowed differences, 'path: recorded -> mine', to be reported.

  Raises:
    ValueError: the folder has a run of another config (the message lists the
      differences), or one without its config or checkpoints.
  """
  _check_whole(workdir)
  path = workdir / CONFIG
  mine = json.loads(json.dumps(resolved))
  told: list[str] = []
  if path.exists() and has_begun(workdir):
    recorded = read_config(workdir)
    by_content = (workdir / INPUTS).exists()
    before, after = (_placed(c, by_content) for c in (recorded, mine))
    changes = list(differences(before, after))
    longer = _longer(recorded, mine)
    if extend and longer:
      _check_extension(recorded)
      before[_LENGTH] = after[_LENGTH]
      changes = list(differences(before, after))
    if len(changes) == 1 and changes[0].startswith(f'{_LENGTH}: '):
      _refuse_length(workdir, recorded[_LENGTH], mine[_LENGTH])
    if changes:
      listed = '\n'.join(f'  {change}' for change in changes)
      hint = (
        ' More steps are let pass by --extend.' if longer and not extend else ''
      )
      raise ValueError(
        f'--workdir: {workdir} holds a run with another config:\n{listed}\n'
        f'Resume it with its own config, or choose another --workdir.{hint}'
      )
    told = list(differences(recorded, mine))
  write_atomically(path, json.dumps(resolved, indent=2) + '\n')
  return told


def _refuse_length(workdir: pathlib.Path, before: int, after: int) -> None:
  """Refuses another number of steps, with what lets a longer run go on."""
  hint = (
    f'add --extend to go on to step {after}'
    if after > before
    else 'a run can be extended, not shortened; give it its own num_steps'
  )
  raise ValueError(
    f'--workdir: {workdir} holds a run of num_steps={before}, now {after};'
    f' {hint}, or choose another --workdir.'
  )


def _longer(recorded: dict[str, Any], mine: dict[str, Any]) -> bool:
  if _LENGTH not in recorded or _LENGTH not in mine:
    return False
  return mine[_LENGTH] > recorded[_LENGTH]


def _check_extension(recorded: dict[str, Any]) -> None:
  """Raises if the end of the run differs from the middle of a longer one."""
  lag = recorded['sampling']['lag']
  if lag:
    raise ValueError(
      f'--extend: the run has sampling.lag={lag}, and samples nothing ahead'
      ' for steps beyond its last; a longer one would have. Train it again'
      ' with more num_steps.'
    )


def _placed(config: dict[str, Any], by_content: bool) -> dict[str, Any]:
  """Config with normalized paths, or without them.

  Args:
    config: plain nested dicts.
    by_content: whether files are compared elsewhere; then of a path only
      whether it is set is kept.
  """
  copy = json.loads(json.dumps(config))

  def place(path: Any, kept: bool) -> Any:
    if by_content:
      return bool(path) if kept else ''
    return os.path.normpath(os.path.expanduser(path)) if path else path

  for paths, kept in ((DATA_PATHS, False), (FOLDER_PATHS, True)):
    for section, _, key in (path.partition('.') for path in paths):
      if key in copy.get(section, {}):
        copy[section][key] = place(copy[section][key], kept)
  section, _, key = _MIXTURE.partition('.')
  rows = copy.get(section, {}).get(key)
  if rows and all(isinstance(row, list) and len(row) == 3 for row in rows):
    copy[section][key] = [[a, place(b, False), c] for a, b, c in rows]
  return copy


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """Recorded config, as plain nested dicts.

  Raises:
    ValueError: there is none, or it is damaged.
  """
  _check_local(workdir)
  path = workdir / CONFIG
  if not path.exists():
    raise ValueError(
      f'--workdir: {workdir} holds no run: it has no {CONFIG}. Name the'
      ' --workdir of a training.'
    )
  return read_json(path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Contents of a JSON file of a run.

  Raises:
    ValueError: it is damaged.
  """
  try:
    return bounded_json.read_object(path)
  except (ValueError, OSError) as error:
    raise ValueError(
      f'--workdir: {path} is damaged ({error}); restore it, or choose'
      ' another folder.'
    ) from error


def overlay(config: Any, recorded: dict[str, Any]) -> Any:
  """Config of configs/default.py with recorded values.

  Args:
    config: a ConfigDict, changed in place.
    recorded: from `read_config`.

  Returns:
    `config`.

  Raises:
    ValueError: they do not have the same keys.
  """
  known, got = set(_paths(config.to_dict())), set(_paths(recorded))
  changes = [f'{path}: unknown' for path in sorted(got - known)]
  changes += [f'{path}: missing' for path in sorted(known - got)]
  if changes:
    listed = '\n'.join(f'  {change}' for change in changes)
    raise ValueError(
      f'--workdir: its {CONFIG} was written by another version; against'
      f' {entry_points.keys_file()}:\n{listed}\nUse the version that trained'
      ' it.'
    )
  config.update(recorded)
  return config


def _paths(tree: dict[str, Any], prefix: str = '') -> Iterator[str]:
  """Paths of the leaves: 'model.d_model'."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _paths(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}'


def differences(
  recorded: Any,
  mine: Any,
  path: str = '',
  free_keys: Collection[str] = FREE_KEYS,
) -> Iterator[str]:
  """'path: recorded -> mine' for each key that differs and is not free."""
  if path in free_keys:
    return
  if isinstance(recorded, dict) and isinstance(mine, dict):
    for key in sorted(recorded.keys() | mine.keys()):
      below = f'{path}.{key}' if path else key
      missing = 'absent'
      yield from differences(
        recorded.get(key, missing), mine.get(key, missing), below, free_keys
      )
  elif recorded != mine:
    yield f'{path}: {recorded!r} -> {mine!r}'
