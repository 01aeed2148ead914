"""A workdir as one process uses it: its lock, and the config it holds.

What several hosts agree on about it is in `shared_workdir`.
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
from dppo_jax.runtime.storage import metrics_log
from dppo_jax.runtime.storage.files import step_number, write_atomically

CONFIG = 'config.json'
INPUTS = 'inputs.json'  # What the run reads, by content.
CHECKPOINTS = 'checkpoints'
LOCK = 'lock'

# Keys that may change when a run is resumed: none of them changes a number
# that the run computes.
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
# Keys that say where something lies. What lies there is compared by content,
# once it has been read; see `inputs`.
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
  """Makes the folder if need be and checks that it can be written.

  Raises:
    ValueError: it cannot, or it is an address and no folder.
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


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps a second process from training in the same folder.

  The lock dies with the process, however it ends.

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
  """Whether a run has saved a checkpoint there."""
  names = [path.name for path in (workdir / CHECKPOINTS).glob('*')]
  return any(step_number(name) is not None for name in names)


def last_recorded(workdir: pathlib.Path) -> int:
  """The last train step that left a line of metrics; 0 where none did."""
  rows = metrics_log.read_rows(workdir / metrics_log.METRICS_FILE)
  return max((row['step'] for row in rows), default=0)


def _check_whole(workdir: pathlib.Path) -> None:
  """Refuses to begin anew where a run has lost a part of itself.

  A run records its first step once its first checkpoint is whole: records
  without a checkpoint are those of a run whose checkpoints were removed, and
  beginning anew would overwrite them.
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

  A run that has recorded no step yet has nothing to lose: its config is
  replaced.
  Where something lies may change in a run that goes on, for what lies there is
  compared by its content.

  Args:
    workdir: of the run.
    resolved: its config.
    extend: lets `num_steps` be more than it was.

  Returns:
    'path: recorded -> mine' of what may differ and does, to be told.

  Raises:
    ValueError: the folder holds a run of another config, and lists what
      differs; or one that lost its config or all of its checkpoints.
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


def _longer(recorded: dict[str, Any], mine: dict[str, Any]) -> bool:
  if _LENGTH not in recorded or _LENGTH not in mine:
    return False
  return mine[_LENGTH] > recorded[_LENGTH]


def _check_extension(recorded: dict[str, Any]) -> None:
  """Refuses to extend what ended as no longer run would have."""
  lag = recorded['sampling']['lag']
  if lag:
    raise ValueError(
      f'--extend: the run has sampling.lag={lag}, and samples nothing ahead'
      ' for steps beyond its last; a longer one would have. Train it again'
      ' with more num_steps.'
    )


def _placed(config: dict[str, Any], by_content: bool) -> dict[str, Any]:
  """A config that spells every path in one way, or whose paths say nothing.

  Args:
    config: plain.
    by_content: whether what lies there is compared elsewhere; then only
      whether a folder is named counts.
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
  """The recorded config, as plain nested dicts.

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
  """The contents of a JSON file of a run.

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
  """Puts recorded values into a config of configs/default.py.

  Args:
    config: a ConfigDict, changed in place.
    recorded: of `read_config`.

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
      f' configs/default.py:\n{listed}\nUse the version that trained it.'
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
