"""The methods and the tiers that figures share."""

from collections.abc import Callable, Sequence
import math
from typing import Any

from configs import presets, stale_digits
from dppo_jax.runtime.figures.figure import Tier

PRESETS = presets.PRESETS
SEEDS = range(10, 15)  # Of all verdicts; settings were chosen with others.
# The least difference that counts, in all figures, for 'more' and for 'alike':
# of the reward, five answers of a hundred; a collapse loses more.
REWARD, COLLAPSE, MISMATCH = 0.05, 0.15, 0.005


def thresholds(
  preset: str, what: str, low: float, high: float, **more: Any
) -> dict[str, Any]:
  """A preset with bounds that stay as they are if the preset's change.

  Args:
    preset: a key of `PRESETS`.
    what: 'delta' or 'clip'.
    low: for A < 0.
    high: for A > 0.
    **more: further keys of trust_region.
  """
  own = {f'{what}_low': low, f'{what}_high': high, **more}
  return {
    **PRESETS[preset],
    **{f'trust_region.{name}': value for name, value in own.items()},
  }


def _clip(preset: str) -> dict[str, Any]:
  return thresholds(preset, 'clip', 0.2, 0.28)


def _bound(preset: str, divergence: str, delta: float) -> dict[str, Any]:
  more = {'divergence': divergence}
  return thresholds(preset, 'delta', delta, delta, **more)


def _cppo(preset: str, **more: Any) -> dict[str, Any]:
  """CPPO by Binary TV, whatever divergence the preset has."""
  own = {'divergence': 'binary_tv', 'budget': 0.015, 'w_min': 0.8, **more}
  return thresholds(preset, 'delta', 0.15, 0.15, **own)


# Methods of the papers by the names that their figures give them. What is kept
# was run with these very numbers, so they stand here.
METHODS = {
  'PG-IS': PRESETS['pg_is'],
  'PG-TIS': {**PRESETS['pg_tis'], 'objective.ratio_cap': 3.0},
  'MiniRL': _clip('minirl'),
  'MiniRL-TIS': {**_clip('minirl_tis'), 'objective.ratio_cap': 3.0},
  'GRPO-ClipHigher': _clip('grpo_clip_higher'),
  'DPPO-Binary-TV': _bound('dppo_binary_tv', 'binary_tv', 0.2),
  'DPPO-Binary-KL': _bound('dppo_binary_kl', 'binary_kl', 0.05),
  'DPPO-TopK-TV': _bound('dppo_topk_tv', 'topk_tv', 0.2),
  'DPPO-TopK-KL': _bound('dppo_topk_kl', 'topk_kl', 0.05),
  'CPPO': _cppo('cppo'),
}
# Further rows of single figures.
EXACT = {
  'Exact-TV': _bound('dppo_exact_tv', 'exact_tv', 0.2),
  'Exact-KL': _bound('dppo_exact_kl', 'exact_kl', 0.05),
}
ANCHORS = {
  'rollout': METHODS['DPPO-Binary-KL'],
  'recomputed': _bound('dppo_binary_kl_recomputed', 'binary_kl', 0.05),
}
DPPO = tuple(name for name in METHODS if name.startswith('DPPO'))


def shrunk(config: Any) -> Any:
  """Two steps of a tiny policy: whether everything works, nothing more."""
  config.num_steps = 2
  config.ledger.every_n_steps = 1
  config.data.num_prompts = 4
  config.data.group_size = 4
  config.model.d_model = 16
  config.model.head_dim = 8
  config.model.d_ff = 32
  config.supervised.num_steps = 2
  config.supervised.batch_size = 8
  config.supervised.cache = ''
  config.model.num_layers = 1
  config.model.layers_a_loop = 1
  config.learner.num_minibatches = 2
  config.learner.share_prompts = False  # Half the time to compile.
  config.evaluation.num_prompts = 8
  config.evaluation.final_num_prompts = 8
  return config


def enlarged(config: Any) -> Any:
  """25 M parameters and more steps, for one accelerator."""
  config.num_steps = 200
  config.data.num_prompts = 128
  config.data.group_size = 16
  config.model.num_layers = 8
  config.model.d_model = 512
  config.model.num_heads = 8
  config.model.num_kv_heads = 8
  config.model.head_dim = 64
  config.model.d_ff = 1536
  config.supervised.num_steps = 600
  config.supervised.learning_rate = 5e-4
  config.optimizer.learning_rate = 1e-4
  return config


def tiers(
  config: Callable[[], Any], *only_in_smoke: str, cpu: Sequence[str] = ()
) -> dict[str, Tier]:
  """The tiers of a figure.

  Args:
    config: of the cpu tier, from which the others are made.
    *only_in_smoke: variants that its smoke tier runs.
    cpu: those that its cpu tier runs; () runs all.
  """
  small, big = lambda: shrunk(config()), lambda: enlarged(config())
  return {
    'smoke': Tier(config=small, seeds=(0,), only=only_in_smoke),
    'cpu': Tier(config=config, seeds=SEEDS, only=cpu),
    'gpu': Tier(config=big, seeds=SEEDS),
  }


def stale_tiers(*only_in_smoke: str) -> dict[str, Tier]:
  """The tiers of a figure on stale data; see `tiers`."""
  return tiers(stale_digits.get_config, *only_in_smoke)


# CPPO, its mechanisms alone, and its neighbors (CPPO Fig. 5, 6).
CPPO_PARTS = {
  'DPPO': _bound('dppo_binary_tv', 'binary_tv', 0.15),
  'CPPO': METHODS['CPPO'],
  'CPPO-P90': _cppo('cppo_dynamic', budget=0.02),
  'weights': _cppo('cppo_no_budget', budget=math.inf),
  'budget': _cppo('cppo_no_weights', w_min=1.0),
  'shuffled': _cppo('cppo_shuffled', weight_order='shuffled'),
  'soft': _cppo('cppo_soft'),
  'KL': {
    **_cppo('cppo_kl', divergence='binary_kl', budget=0.002),
    'trust_region.delta_low': 0.1,
    'trust_region.delta_high': 0.1,
  },
  'Top-K': _cppo('cppo', divergence='topk_tv'),
  'budget .03': _cppo('cppo', budget=0.03),
  'w_min .6': _cppo('cppo', w_min=0.6),
}


def pod(*names: str, config: str = 'sanity_r1_distill_1_5b') -> tuple[str, ...]:
  """Commands of a paper's own setting, a preset each.

  Args:
    *names: keys of `PRESETS`.
    config: of configs/; without one, the sanity test of DPPO section 5.
  """
  return tuple(
    'python -m experiments.train'
    f' --config=configs/{config}.py:{name} --workdir=runs/{name}'
    for name in names
  )
