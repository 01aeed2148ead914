"""Golden files of 2026's successors, read and validated.

A file is an .npz of inputs (`mu_logits`, `pi_logits` [B, T, V], `tokens`,
`advantages`, `mask` [B, T], `topk_ids` [B, T, K]) and of results, f64:

  score_centering/loss/MODE/SUM                      []  MODE none, tis, mis
  score_centering/grad_pi_logits/MODE/SUM            [B, T, V]  SUM topk, full
  unirl/RULE/loss/eps=BOUND                          []  RULE drpo, spo
  unirl/RULE/grad_pi_logits/eps=BOUND                [B, T, V]
  predictive/direction/TAIL          [B, T]  TAIL exact, aggregated_tail,
                                             uniform_tail
  predictive/keep/DIVERGENCE/delta=DELTA             [B, T]
  exact_kl, exact_tv                                 [B, T]

Losses are means over completion tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
import math
import pathlib
from typing import NamedTuple

import numpy as np

from dppo_jax.conformance.golden import GoldenError, load_arrays

# Inputs, and their axes.
INPUTS = {
  'mu_logits': 'BTV',
  'pi_logits': 'BTV',
  'tokens': 'BT',
  'advantages': 'BT',
  'mask': 'BT',
  'topk_ids': 'BTK',
}
_AXES = {'loss': '', 'grad_pi_logits': 'BTV', 'direction': 'BT', 'keep': 'BT'}
_KINDS = ('loss', 'grad_pi_logits')
_DIVERGENCES = ('exact_kl', 'exact_tv')
# The parts of a result's name; 'key=' is followed by a number.
_FORMATS: Sequence[Sequence[tuple[str, ...]]] = (
  (('score_centering',), _KINDS, ('none', 'tis', 'mis'), ('topk', 'full')),
  (('unirl',), ('drpo', 'spo'), _KINDS, ('eps=',)),
  (
    ('predictive',),
    ('direction',),
    ('exact', 'aggregated_tail', 'uniform_tail'),
  ),
  (('predictive',), ('keep',), _DIVERGENCES, ('delta=',)),
  (_DIVERGENCES,),
)


class Result(NamedTuple):
  """What a result is, by its name.

  Attributes:
    parts: of the name, without a number.
    bound: the number at its end; NaN if there is none.
  """

  parts: tuple[str, ...]
  bound: float


def is_of_successors(arrays: Mapping[str, np.ndarray]) -> bool:
  """Whether a golden file has this format, or could not have the other."""
  if 'old_logits' in arrays:
    return False
  heads = {name.split('/')[0] for name in arrays if name not in INPUTS}
  mine = heads & {'score_centering', 'predictive', *_DIVERGENCES}
  mine |= {n for n in arrays if n.startswith(('unirl/drpo/', 'unirl/spo/'))}
  inputs = arrays.keys() & INPUTS.keys()
  others = heads & {'stable_rl', 'trl', 'verl', 'topk_log_probs'}
  return bool(mine or (inputs and not others))


def split_folder(
  folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """Golden files of a folder: of this format, and the others."""
  paths = sorted(folder.glob('*.npz')) if folder.is_dir() else []
  mine = []
  for path in paths:
    try:
      if is_of_successors(load_arrays(path)):
        mine.append(path)
    except GoldenError:
      continue  # Reported by the reader of the other format.
  return mine, [path for path in paths if path not in mine]


def read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Arrays of a file by name, validated.

  Raises:
    GoldenError: an array is missing, or has another shape, an unknown name or
      values that it cannot have; a line for each problem, with the file, the
      array, what was got and what is expected.
  """
  arrays = load_arrays(path)
  problems = list(_problems(arrays))
  if problems:
    raise GoldenError('\n'.join(f'{path.name}: {line}' for line in problems))
  return arrays


def parse(name: str) -> Result:
  """What a result is.

  Raises:
    GoldenError: no result has that name.
  """
  parts = name.split('/')
  key, equals, number = parts[-1].partition('=')
  named = (*parts[:-1], key + equals)
  near = [f for f in _FORMATS if parts[0] in f[0]]
  for parts_of in near:
    fits = len(parts_of) == len(named) and all(
      part in allowed for part, allowed in zip(named, parts_of, strict=True)
    )
    if fits and not equals:
      return Result(named, math.nan)
    if fits:
      return Result(named[:-1], _number(name, named, key, number))
  expected = ' or '.join(
    '/'.join('|'.join(allowed) for allowed in parts_of)
    for parts_of in near or _FORMATS
  )
  raise GoldenError(f'{name}: unknown result; expected {expected}.')


def _number(name: str, parts: Sequence[str], key: str, text: str) -> float:
  try:
    bound = float(text)
  except ValueError:
    bound = math.nan
  most = 1.0 if 'exact_tv' in parts else math.inf
  right = bound > 0 if key == 'eps' else 0 <= bound <= most
  if not right or math.isinf(bound):
    allowed = 'above 0' if key == 'eps' else f'from 0 to {most:g}'
    raise GoldenError(
      f'{name}: got {key}={text!r}; expected a finite number {allowed}.'
    )
  return bound


def _problems(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
  """Problems of a file; those of values only where shapes are right."""
  missing = [name for name in INPUTS if name not in arrays]
  if missing:
    yield (
      f'missing {", ".join(missing)}; got'
      f' {", ".join(n for n in INPUTS if n in arrays) or "none"} of the inputs,'
      f' expected all of {", ".join(INPUTS)}.'
    )
    return
  flat = [n for n in ('mu_logits', 'topk_ids') if arrays[n].ndim != 3]
  for name in flat:
    yield f'{name}: got shape {arrays[name].shape}, expected three axes.'
  if flat:
    return
  if len(arrays) == len(INPUTS):
    yield 'no results; expected some beside the inputs.'
  sizes = dict(zip('BTV', arrays['mu_logits'].shape, strict=True))
  sizes['K'] = arrays['topk_ids'].shape[2]
  wrong = list(_wrong_shapes(arrays, sizes))
  yield from wrong or _wrong_values(arrays, sizes)


def _wrong_shapes(
  arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> Iterator[str]:
  if not sizes['B'] * sizes['T'] * sizes['V']:
    yield f'mu_logits: got shape {arrays["mu_logits"].shape}, expected no 0.'
  if not 1 <= sizes['K'] <= sizes['V']:
    yield f'topk_ids: got K = {sizes["K"]}, expected 1 to V = {sizes["V"]}.'
  for name, array in arrays.items():
    try:
      axes = INPUTS[name] if name in INPUTS else _axes(parse(name))
    except GoldenError as error:
      yield str(error)
      continue
    expected = tuple(sizes[axis] for axis in axes)
    if array.shape != expected:
      yield (
        f'{name}: got shape {array.shape}, expected {expected}, which is'
        f' [{", ".join(axes)}].'
      )


def _axes(result: Result) -> str:
  kinds = [_AXES[part] for part in result.parts if part in _AXES]
  return kinds[0] if kinds else 'BT'


def _wrong_values(
  arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> Iterator[str]:
  """Problems of values, of the units that results have among them."""
  for name, array in arrays.items():
    low, high = float(array.min()), float(array.max())
    got = f'{name}: got {low:g} to {high:g}, expected'
    if not np.isfinite(array).all():
      yield f'{name}: got NaN or infinity, expected finite numbers.'
    elif name in ('tokens', 'topk_ids'):
      if array.dtype.kind not in 'iu' or low < 0 or high >= sizes['V']:
        yield f'{got} integers from 0 to {sizes["V"] - 1}.'
    elif name == 'mask' or '/keep/' in name:
      if not np.isin(array, (0, 1)).all():
        yield f'{name}: got other values, expected 0 and 1 only.'
    elif name == 'exact_tv' and not (low >= 0 and high <= 1):
      yield f'{got} probabilities, 0 to 1.'
    elif name == 'exact_kl' and low < 0:
      yield f'{got} nats, 0 or more.'
  if not arrays['mask'].any():
    yield 'mask: got no completion token, expected one at least.'
  ids = np.sort(arrays['topk_ids'], axis=-1)
  if (ids[..., 1:] == ids[..., :-1]).any():
    yield 'topk_ids: got an id twice at a position, expected K different ones.'
