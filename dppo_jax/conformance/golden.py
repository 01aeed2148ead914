"""Golden files: inputs, and the outputs of the authors' code for them.

A file is an .npz. Arrays without a slash in the name are `Inputs`; the others
are results, f32:

  stable_rl/mask/MODE                          [B, T]
  stable_rl/loss/MODE/C=CAP/AGGREGATION        []
  stable_rl/grad_pi_logits/MODE/C=CAP/AGGREGATION  [B, T, V]
  trl/mask/MODE                                [B, T]
  verl/loss/MODE/anchor=ANCHOR                 []
  verl/grad_pi_logits/MODE/anchor=ANCHOR       [B, T, V]
  unirl/cppo_mask/MODE                         [B, T]
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import NamedTuple
import zipfile

import numpy as np

from dppo_jax import bounded_npz


class GoldenError(ValueError):
  """Golden file that cannot be compared; the message has file and array."""


class Inputs(NamedTuple):
  """Random inputs, by their names in the file.

  Attributes:
    mu_logits: f32 [B, T, V] of the rollout policy, temperature 1.
    old_logits: f32 [B, T, V] of the recomputed policy.
    pi_logits: f32 [B, T, V] of the current policy.
    tokens: int [B, T], sampled from mu.
    advantages: f32 [B, T].
    mask: [B, T], 1 on completion tokens, else 0.
    rollout_log_probs: f32 [B, T], of the sampled token.
    old_log_probs: f32 [B, T].
    log_probs: f32 [B, T], of the current policy.
    topk_ids: int [B, T, K], mu's top K, the sampled token among them: it
      replaces the last one if need be.
    topk_log_probs: f32 [B, T, K], mu's log-probs of them.
    topk_kl: f32 [B, T], the authors' Top-K KL on them, nats.
    topk_tv: f32 [B, T], the same as TV.
  """

  mu_logits: np.ndarray
  old_logits: np.ndarray
  pi_logits: np.ndarray
  tokens: np.ndarray
  advantages: np.ndarray
  mask: np.ndarray
  rollout_log_probs: np.ndarray
  old_log_probs: np.ndarray
  log_probs: np.ndarray
  topk_ids: np.ndarray
  topk_log_probs: np.ndarray
  topk_kl: np.ndarray
  topk_tv: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Golden:
  """A validated golden file.

  Attributes:
    name: of the file.
    inputs: arrays of `Inputs`.
    results: outputs, by the full name of the array.
  """

  name: str
  inputs: Inputs
  results: Mapping[str, np.ndarray]


_VOCABULARY = ('mu_logits', 'old_logits', 'pi_logits')
_TOP_K = ('topk_ids', 'topk_log_probs')
_INTEGERS = ('tokens', 'topk_ids')
# Shape of a result, by the second part of its name.
_RESULT_SHAPES = {
  'mask': ('B', 'T'),
  'cppo_mask': ('B', 'T'),
  'loss': (),
  'grad_pi_logits': ('B', 'T', 'V'),
}


def read_folder(folder: pathlib.Path) -> list[Golden]:
  """Golden files of a folder, sorted by name; raises as `read_files` does."""
  return read_files(folder, sorted(folder.glob('*.npz')))


def read_files(
  folder: pathlib.Path, paths: Sequence[pathlib.Path]
) -> list[Golden]:
  """Golden files of a folder, in the order given.

  Raises:
    GoldenError: there is none, or some cannot be compared; lists all problems.
  """
  if not folder.is_dir():
    raise GoldenError(f'--golden: no folder {str(folder)!r}.')
  if not paths:
    raise GoldenError(
      f'--golden: no .npz file in {str(folder)!r}; name the folder that holds'
      ' the golden files themselves.'
    )
  files, problems = [], []
  for path in paths:
    try:
      files.append(read_file(path))
    except GoldenError as error:
      problems.append(str(error))
  if problems:
    raise GoldenError('\n'.join(problems))
  return files


def read_file(path: pathlib.Path) -> Golden:
  """Golden file, read and validated; nothing in it is ever unpickled.

  Raises:
    GoldenError: not an .npz of numbers, an array is missing, or shapes or
      values disagree; the message has the file and for each array what was got
      and expected.
  """
  arrays = load_arrays(path)
  missing = [name for name in Inputs._fields if name not in arrays]
  if missing:
    found = [name for name in Inputs._fields if name in arrays]
    raise GoldenError(
      f'{path.name}: missing {", ".join(missing)}; got'
      f' {", ".join(found) or "none"} of the inputs, expected all of'
      f' {", ".join(Inputs._fields)}.'
    )
  inputs = Inputs(**{name: arrays.pop(name) for name in Inputs._fields})
  problems = _disagreements(inputs, arrays)
  if problems:
    raise GoldenError('\n'.join(f'{path.name}: {line}' for line in problems))
  return Golden(name=path.name, inputs=inputs, results=arrays)


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Arrays of an .npz by name; nothing in it is ever unpickled.

  Raises:
    GoldenError: not an .npz of numbers.
  """
  if not path.is_file() or not zipfile.is_zipfile(path):
    raise GoldenError(f'{path.name}: not an .npz file: it is no archive.')
  try:
    arrays = bounded_npz.read(path)
  except (OSError, ValueError) as error:
    raise GoldenError(
      f'{path.name}: not an .npz file of plain numbers: {error}'
    ) from error
  for name, array in arrays.items():
    if array.dtype.kind not in 'fiub':
      raise GoldenError(
        f'{path.name}: {name}: got dtype {array.dtype}, expected numbers.'
      )
  return arrays


def _disagreements(
  inputs: Inputs, results: Mapping[str, np.ndarray]
) -> list[str]:
  """Problems of shapes, dtypes and values, one line each."""
  if inputs.mu_logits.ndim != 3 or inputs.topk_ids.ndim != 3:
    return [
      f'{name}: got shape {array.shape}, expected {expected}.'
      for name, array, expected in (
        ('mu_logits', inputs.mu_logits, '[B, T, V]'),
        ('topk_ids', inputs.topk_ids, '[B, T, K]'),
      )
      if array.ndim != 3
    ]
  sizes = dict(zip('BTV', inputs.mu_logits.shape, strict=True))
  sizes['K'] = inputs.topk_ids.shape[2]
  problems = []
  arrays = {**inputs._asdict(), **results}
  for name, array in arrays.items():
    axes = _axes(name)
    if axes is None:
      continue
    expected = tuple(sizes[axis] for axis in axes)
    if array.shape != expected:
      problems.append(
        f'{name}: got shape {array.shape}, expected {expected}, which is'
        f' [{", ".join(axes)}] by mu_logits {inputs.mu_logits.shape} and'
        f' topk_ids {inputs.topk_ids.shape}.'
      )
  return problems or _bad_values(inputs, sizes)


def _axes(name: str) -> tuple[str, ...] | None:
  """Axes of an array; None for a result of unknown kind."""
  if name not in Inputs._fields:
    return _RESULT_SHAPES.get(name.split('/')[1]) if '/' in name else None
  last = 'V' if name in _VOCABULARY else 'K'
  return ('B', 'T', last) if name in (*_VOCABULARY, *_TOP_K) else ('B', 'T')


def _bad_values(inputs: Inputs, sizes: Mapping[str, int]) -> list[str]:
  problems = []
  if not sizes['B'] * sizes['T']:
    problems.append(
      f'mu_logits: got shape {inputs.mu_logits.shape}, expected B and T >= 1.'
    )
  if not 1 <= sizes['K'] <= sizes['V']:
    problems.append(
      f'topk_ids: got K = {sizes["K"]}, expected 1 to V = {sizes["V"]}.'
    )
  for name, array in inputs._asdict().items():
    if name in _INTEGERS:
      if array.dtype.kind not in 'iu':
        problems.append(f'{name}: got dtype {array.dtype}, expected integers.')
      elif array.size and not 0 <= array.min() <= array.max() < sizes['V']:
        problems.append(
          f'{name}: got {array.min()} to {array.max()}, expected 0 to'
          f' {sizes["V"] - 1}, below V of mu_logits.'
        )
    elif np.isnan(array).any():
      problems.append(f'{name}: got NaN, expected numbers.')
  if not np.isin(inputs.mask, (0, 1)).all():
    problems.append('mask: got other values, expected 0 and 1 only.')
  return problems
