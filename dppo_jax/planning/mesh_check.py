"""Comparison of sampling and training of a config across meshes.

Weights and keys come from the seed, prompts are random tokens, and rewards are
random: only the arithmetic is compared. Every layout trains on the tokens of
the first one, so that differences can be attributed to a phase.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dppo_jax.base import Prompts, Rollout, Stream, TrainState, stream_key
from dppo_jax.learner import state as state_lib
from dppo_jax.planning import mesh_layouts, missing_files
from dppo_jax.planning.mesh_layouts import Layout
from dppo_jax.runtime.config.experiment import Experiment, replace_keys
from dppo_jax.runtime.hub import load_weights
from dppo_jax.runtime.programs import base_weights, compiled
from dppo_jax.runtime.programs import parts as parts_lib

LOSS_TOLERANCE = 1e-5
_NUM_STEPS = 2


class StepResult(NamedTuple):
  """Results of a step on one layout.

  Attributes:
    rollout: sampled on this layout, on the host.
    loss: on the first layout's tokens.
    keep: f32 [B, R], M of those tokens.
    divergence: f32 [B, R], of those tokens.
  """

  rollout: Rollout
  loss: float
  keep: np.ndarray
  divergence: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayoutComparison:
  """Comparison of a layout with the first one.

  Attributes:
    layout: the one compared.
    skipped: reason why it was not run, '' if it was.
    num_tokens: completion tokens sampled by the first layout.
    num_other: completion tokens that differ, in value or presence.
    loss_error: largest |difference| of a loss over max(1, |loss|).
    num_decisions: tokens with a trust-region decision.
    num_masked: tokens masked on the first layout.
    num_flipped: tokens with a different decision.
    divergence_error: largest difference of a token's divergence.
  """

  layout: Layout
  skipped: str = ''
  num_tokens: int = 0
  num_other: int = 0
  loss_error: float = 0.0
  num_decisions: int = 0
  num_masked: int = 0
  num_flipped: int = 0
  divergence_error: float = 0.0

  @property
  def agrees(self) -> bool:
    """Whether tokens are equal and losses are within tolerance."""
    return not self.num_other and self.loss_error <= LOSS_TOLERANCE


def check(config: Any, num_prompts: int, log: Callable[[str], None]) -> bool:
  """Whether a config agrees on all meshes of the local devices; logs a table.

  Args:
    config: with the keys of `configs/default.py`; needs neither weights nor
      data.
    num_prompts: per step.
    log: receives lines.

  Returns:
    Whether at least two meshes were compared, and all compared ones agree.

  Raises:
    ValueError: the config has problems.
  """
  compared = compare(config, num_prompts, log, mesh_layouts.LAYOUTS)
  for line in report(config, compared):
    log(line)
  ran = [each for each in compared if not each.skipped]
  return len(ran) > 1 and all(each.agrees for each in ran)


def compare(
  config: Any,
  num_prompts: int,
  log: Callable[[str], None],
  layouts: Sequence[Layout],
) -> list[LayoutComparison]:
  """Comparisons of layouts with the first one; arguments as in `check`."""
  compared: list[LayoutComparison] = []
  expected: list[StepResult] = []
  for layout, experiment, why in mesh_layouts.choose(
    config, num_prompts, layouts
  ):
    if experiment is None:
      compared.append(LayoutComparison(layout=layout, skipped=why))
      if layout == layouts[0]:
        break
      continue
    log(f'Running {layout}, devices {layout.order}')
    found = run(experiment, layout, expected)
    expected = expected or found
    compared.append(_compare(layout, expected, found))
  return compared


def run(
  experiment: Experiment, layout: Layout, expected: Sequence[StepResult]
) -> list[StepResult]:
  """Results of a few train steps.

  Args:
    experiment: on the layout.
    layout: of the devices.
    expected: results of the first layout, whose tokens are trained on; empty if
      this is the first.
  """
  devices = mesh_layouts.arrange(layout)
  if not missing_files.has_weights(experiment.model.pretrained):
    experiment = replace_keys(experiment, {'model.pretrained': ''})
  parts: Any = parts_lib.assemble_model(experiment, devices)
  if experiment.lora is not None:
    base = base_weights.load_base(experiment, devices)
    parts = dataclasses.replace(parts, base=base)
  state = _initial_state(experiment, parts)
  sample = compiled.compile_sampler(parts, experiment.sampling)
  score = compiled.compile_scorer(parts, experiment)
  make_batch = compiled.compile_batcher(parts, experiment)
  copy_head = compiled.compile_anchor_head(parts)
  train = compiled.compile_step(experiment, parts, recording=True)
  reference = None
  if experiment.loss.kl_coefficient:
    reference = jax.tree.map(jnp.copy, state.params)
  found: list[StepResult] = []
  for step in range(_NUM_STEPS):
    key = stream_key(state.key, Stream.SAMPLE, step)
    drawn = sample(state.params, random_prompts(experiment, step), key)
    drawn = jax.device_get(drawn)
    rollout = expected[step].rollout if expected else drawn
    recomputed = pulled = head = None
    if experiment.loss.anchor == 'recomputed':
      recomputed = score(state.params, rollout)
    if reference is not None:
      unrouted = dataclasses.replace(rollout, routes=None)
      pulled = score(reference, unrouted)
    if parts_lib.keeps_hidden(experiment):
      # Not rounded like the sampler's: it is compared only.
      head = copy_head(state.params)
    rewards = random_rewards(experiment, step)
    batch, _ = make_batch(rollout, jnp.asarray(rewards), recomputed, pulled)
    state, metrics, record = train(state, batch, head)
    decisions = jax.device_get(record.record)
    found.append(
      StepResult(
        rollout=drawn,
        loss=float(metrics['loss/total']),
        keep=decisions.keep,
        divergence=decisions.divergence,
      )
    )
  return found


def random_prompts(experiment: Experiment, step: int) -> Prompts:
  """Prompts of random tokens and lengths: a function of (seed, step)."""
  data = experiment.data
  rng = np.random.default_rng((experiment.seed, step, 0))
  shape = (data.num_prompts, data.max_prompt_length)
  lengths = rng.integers(1, shape[1] + 1, shape[0])
  mask = np.arange(shape[1]) >= shape[1] - lengths[:, None]
  tokens = rng.integers(0, experiment.model.vocab_size, shape)
  return Prompts(
    tokens=jnp.asarray(
      np.where(mask, tokens, experiment.sampling.pad_id), jnp.int32
    ),
    mask=jnp.asarray(mask),
    example_id=jnp.arange(shape[0], dtype=jnp.int32),
  )


def random_rewards(experiment: Experiment, step: int) -> np.ndarray:
  """Rewards 0 or 1, f32 [B]: a function of (seed, step)."""
  rng = np.random.default_rng((experiment.seed, step, 1))
  rows = experiment.data.num_prompts * experiment.data.group_size
  return rng.integers(0, 2, rows).astype(np.float32)


def _initial_state(
  experiment: Experiment, parts: parts_lib.ModelParts
) -> TrainState:
  if not experiment.model.pretrained or experiment.lora is not None:
    return state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, experiment.seed
    )
  folder = pathlib.Path(experiment.model.pretrained).expanduser()
  params = load_weights.load_params(folder, parts.abstract_state.params)
  return state_lib.adopt(
    parts.optimizer, params, parts.shardings, experiment.seed
  )


def _compare(
  layout: Layout, expected: Sequence[StepResult], found: Sequence[StepResult]
) -> LayoutComparison:
  counts = dict.fromkeys(
    ('num_tokens', 'num_other', 'num_decisions', 'num_masked', 'num_flipped'), 0
  )
  loss_error = divergence_error = 0.0
  for want, got in zip(expected, found, strict=True):
    mask, other = want.rollout.completion_mask, got.rollout.completion_mask
    differs = (want.rollout.tokens != got.rollout.tokens) | (mask != other)
    counts['num_tokens'] += int(mask.sum())
    counts['num_other'] += int((differs & (mask | other)).sum())
    decided = mask[:, -want.keep.shape[1] :]
    counts['num_decisions'] += int(decided.sum())
    counts['num_masked'] += int(((want.keep == 0) & decided).sum())
    counts['num_flipped'] += int(_flips(want.keep, got.keep)[decided].sum())
    # A NaN loss never agrees.
    error = abs(got.loss - want.loss) / max(1.0, abs(want.loss))
    loss_error = max(loss_error, error if np.isfinite(error) else np.inf)
    gap = np.abs(got.divergence - want.divergence)[decided]
    divergence_error = max(divergence_error, float(gap.max(initial=0.0)))
  return LayoutComparison(
    layout=layout,
    loss_error=loss_error,
    divergence_error=divergence_error,
    **counts,
  )


def _flips(want: np.ndarray, got: np.ndarray) -> np.ndarray:
  """Tokens that are kept by one and masked by the other, bool.

  With soft rules, tokens whose weights differ by more than the tolerance.
  """
  return ((want == 0) != (got == 0)) | (np.abs(want - got) > LOSS_TOLERANCE)


def report(config: Any, compared: Sequence[LayoutComparison]) -> list[str]:
  """Lines of the table and its summary."""
  header = ('mesh', 'devices', 'other tokens', 'loss', 'flips', 'divergence')
  rows: list[tuple[str, ...]] = [header]
  for each in compared:
    name, order = str(each.layout), each.layout.order
    if each.skipped:
      rows.append((name, order, f'skipped: {each.skipped}'))
      continue
    rows.append(
      (
        name,
        order,
        f'{each.num_other:,} of {each.num_tokens:,}',
        f'{each.loss_error:.1e}',
        f'{each.num_flipped:,} of {each.num_decisions:,}',
        f'{each.divergence_error:.1e}',
      )
    )
  whole = [row for row in rows if len(row) == len(header)]
  widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
  widths[:2] = [max(len(row[i]) for row in rows) for i in (0, 1)]
  lines = [
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=False)
    ).rstrip()
    for row in rows
  ]
  return ['', *lines, '', *_verdict(config, compared)]


def _verdict(config: Any, compared: Sequence[LayoutComparison]) -> list[str]:
  ran = [each for each in compared if not each.skipped]
  if len(ran) < 2:
    return [
      'Nothing was compared: see why each mesh was skipped. A config that is'
      ' too large for this machine runs the same programs at a smaller size:'
      " --config.model.pretrained='' --config.model.num_layers=2"
      ' --config.data.group_size=4 --config.sampling.max_completion_length=32'
      ' --config.data.max_prompt_length=32; or run this on the target machine.'
    ]
  worst = max(each.loss_error for each in ran)
  flips = sum(each.num_flipped for each in ran)
  decided = sum(each.num_decisions for each in ran[1:])
  other = sum(each.num_other for each in ran)
  lines = [
    f'{len(ran)} meshes, {_NUM_STEPS} train steps each; loss and divergence:'
    ' the largest difference from the first mesh.',
    'Tokens: the same on all of them.'
    if not other
    else f'TOKENS DIFFER: {other:,} over all meshes.',
    f'Losses: within {worst:.1e} of each other; {LOSS_TOLERANCE:g} is allowed.'
    if worst <= LOSS_TOLERANCE
    else f'LOSSES DIFFER by {worst:.1e}; {LOSS_TOLERANCE:g} is allowed.',
    f'Trust region: {flips:,} of {decided:,} decisions flipped;'
    f' {ran[0].num_masked:,} of {ran[0].num_decisions:,} tokens were masked on'
    ' the first mesh.',
  ]
  if not all(each.agrees for each in ran):
    lines.append(_advice(config))
  return [
    *lines,
    'Results need not be bitwise equal across meshes: sums have a different'
    ' order.',
    'This used one process. tests/integration/test_two_processes.py compares'
    ' two with one.',
  ]


def _advice(config: Any) -> str:
  precision, dtype = config.sampling.precision, config.model.dtype
  if precision == dtype == 'float32':
    return (
      'In float32 this is more than rounding: do not train on such a mesh, and'
      ' report the table. (On GPUs and TPUs, set'
      ' JAX_DEFAULT_MATMUL_PRECISION=float32 first; the default rounds.)'
    )
  return (
    f'With model.dtype={dtype} and sampling.precision={precision} rounding'
    ' alone can change a sampled token. Compare with'
    ' --config.model.dtype=float32 --config.sampling.precision=float32: a'
    ' difference there is not rounding.'
  )
