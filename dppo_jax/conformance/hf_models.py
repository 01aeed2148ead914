"""Comparison of published models with the outputs of their own code.

A folder holds a model (config.json, safetensors) and expected.npz: left-padded
`input_ids` and `attention_mask` [N, P], `logits` f32 [N, P, V] of the full
forward pass and `greedy` [N, R], the greedy continuation that no end token
cuts.
"""

from collections.abc import Sequence
import dataclasses
import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax import bounded_npz, parallel
from dppo_jax.base import Params, Prompts
from dppo_jax.models.layers import TransformerConfig
from dppo_jax.models.policy import Policy, make_policy
from dppo_jax.runtime import activity
from dppo_jax.runtime.hub import hf_config, load_weights
from dppo_jax.runtime.programs.compiled import vocabulary_axes
from dppo_jax.sampling.decode import sample
from dppo_jax.sampling.plain import plain_sampling

EXPECTED = 'expected.npz'
LOGITS_BAR = 2e-5  # Largest difference over the largest logit, f32.
_ARRAYS = ('input_ids', 'attention_mask', 'logits', 'greedy')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelComparison:
  """Comparison of one model.

  Attributes:
    folder: of the model.
    logits_error: largest |ours - theirs| / largest |theirs|, real positions.
    greedy_differ: rows whose greedy continuation differs.
    num_greedy: rows compared.
    problem: reason why nothing could be compared, or ''.
  """

  folder: pathlib.Path
  logits_error: float
  greedy_differ: int
  num_greedy: int
  problem: str

  @property
  def conforms(self) -> bool:
    """Whether it is within the tolerances."""
    return (
      not self.problem
      and self.logits_error <= LOGITS_BAR
      and not self.greedy_differ
    )


def compare_folder(root: pathlib.Path) -> list[ModelComparison]:
  """Comparisons of every model at or below a folder.

  Raises:
    ValueError: there is no model.
  """
  found = sorted(path.parent for path in root.rglob(EXPECTED))
  if not found:
    raise ValueError(
      f'--pretrained: no {EXPECTED} at or below {str(root)!r}; name a folder'
      ' of models with their outputs.'
    )
  return [_compare(folder) for folder in found]


def _compare(folder: pathlib.Path) -> ModelComparison:
  try:
    with activity.under_way(f'comparing {folder.name}'):
      return compare(folder)
  except ValueError as error:
    return ModelComparison(
      folder=folder,
      logits_error=float('inf'),
      greedy_differ=0,
      num_greedy=0,
      problem=str(error),
    )


def compare(folder: pathlib.Path) -> ModelComparison:
  """Comparison of one model, loaded and run in f32.

  Raises:
    ValueError: it cannot be loaded, or expected.npz lacks an array.
  """
  expected = _read_expected(folder / EXPECTED)
  policy, params = load_policy(folder)
  mask = expected['attention_mask'].astype(bool)
  tokens = jnp.asarray(expected['input_ids'], jnp.int32)
  prompts = Prompts(
    tokens=tokens,
    mask=jnp.asarray(mask),
    example_id=jnp.zeros(tokens.shape[:1], jnp.int32),
  )

  @jax.jit
  def run(params: Params) -> jax.Array:
    return policy.logits(params, policy.apply(params, tokens, prompts.mask))

  logits = np.asarray(run(params))[mask]
  theirs = expected['logits'][mask]
  config = plain_sampling(expected['greedy'].shape[1], greedy=True)
  axes = vocabulary_axes(parallel.make_mesh(1, 1, 1, devices=jax.devices()[:1]))
  draw = functools.partial(sample, policy, axes, config)
  drawn = jax.jit(lambda p: draw(p, prompts, _key()))(params)
  continued = np.asarray(drawn.tokens)[:, tokens.shape[1] :]
  differ = (continued != expected['greedy']).any(axis=1)
  error = np.abs(logits - theirs).max() / np.abs(theirs).max()
  return ModelComparison(
    folder=folder,
    logits_error=float(error),
    greedy_differ=int(differ.sum()),
    num_greedy=len(differ),
    problem='',
  )


def load_policy(folder: pathlib.Path) -> tuple[Policy, Params]:
  """Published model in f32, unsharded on the first device.

  Raises:
    ValueError: it cannot be loaded.
  """
  config = TransformerConfig(
    **hf_config.read_shape(folder),
    dtype='float32',
    scan_unroll=1,
    shard_sequence=False,
    shard_attention='heads',
    remat='none',
    attention='auto',
  )
  policy = make_policy(config)
  mesh = parallel.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  shapes = nn.unbox(jax.eval_shape(policy.init, _key()))
  whole = parallel.replicated(mesh)
  like = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
    shapes,
  )
  return policy, load_weights.load_params(folder, like)


def _key() -> jax.Array:
  return jax.random.PRNGKey(0)


def _read_expected(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    found = bounded_npz.read(path)
  except (OSError, ValueError) as error:
    raise ValueError(f'{path} is damaged ({error}); write it again.') from error
  missing = [name for name in _ARRAYS if name not in found]
  if missing:
    raise ValueError(
      f'{path}: lacks {", ".join(missing)}; it must hold {", ".join(_ARRAYS)}.'
    )
  return {name: found[name] for name in _ARRAYS}


def describe(root: pathlib.Path, found: Sequence[ModelComparison]) -> str:
  """Text with one line per model, its problems, and the verdict."""
  names = [
    '.' if c.folder == root else str(c.folder.relative_to(root)) for c in found
  ]
  width = max(map(len, [*names, 'model']))
  lines = [f'{"model":<{width}}  logits, relative  greedy rows equal']
  for name, c in zip(names, found, strict=True):
    equal = f'{c.num_greedy - c.greedy_differ} of {c.num_greedy}'
    cells = f'{c.logits_error:>16.1e}  {equal:>17}'
    verdict = '' if c.conforms else '  MISS'
    if c.problem:
      cells, verdict = f'{"-":>16}  {"-":>17}', f'  {c.problem}'
    lines.append(f'{name:<{width}}  {cells}{verdict}')
  misses = sum(not c.conforms for c in found)
  bars = f'logits within {LOGITS_BAR:g}, greedy tokens equal'
  worst = max(c.logits_error for c in found)
  lines.append(
    f'Conforms: {len(found)} models, worst error {worst:.1e} ({bars}).'
    if not misses
    else f'DOES NOT CONFORM: {misses} of {len(found)} models ({bars}).'
  )
  return '\n'.join(lines)
