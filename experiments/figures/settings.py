"""Methods and tiers shared by the figures."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

from dppo_jax.configs import stale_digits
from dppo_jax.experiments.figures.harness.figure import Tier

SEEDS = range(10, 15)  # Of all verdicts; settings were tuned with others.
# The least difference that counts, in all figures, for 'more' and for 'alike':
# for the reward, five answers in a hundred; more for a collapse.
REWARD, COLLAPSE, MISMATCH = 0.05, 0.15, 0.005
Overrides = Mapping[str, Any]
# Base of every variant. Values are repeated here and not taken from
# configs/presets.py: the kept results were run with them, and presets may
# change with their papers.
_PLAIN: Overrides = {
  'trust_region.rule': 'none',
  'trust_region.anchor': 'rollout',
  'trust_region.direction': 'away',
  'trust_region.advantage_sign': 'both',
  'trust_region.alpha_low': 0.0,
  'trust_region.alpha_high': 0.0,
  'trust_region.top_k_set': 'union',
  'objective.loss_form': 'score',
  'objective.importance': 'token',
  'objective.ratio_cap': math.inf,
  'objective.ratio_floor': 0.0,
}


def ruled(rule: str, **more: Any) -> dict[str, Any]:
  """Overrides of a variant.

  Args:
    rule: of the trust region.
    **more: further keys of section trust_region, or 'ratio_cap'.
  """
  cap = more.pop('ratio_cap', math.inf)
  own = {f'trust_region.{name}': value for name, value in more.items()}
  return {
    **_PLAIN,
    'trust_region.rule': rule,
    'objective.ratio_cap': cap,
    **own,
  }


def clip(low: float = 0.2, high: float = 0.28, **more: Any) -> dict[str, Any]:
  """Overrides of a ratio clip; see `ruled`."""
  return ruled('ratio_clip', clip_low=low, clip_high=high, **more)


def bound(divergence: str, delta: float, **more: Any) -> dict[str, Any]:
  """Overrides of a bound on a divergence; see `ruled`."""
  both = {'delta_low': delta, 'delta_high': delta}
  return ruled('divergence', divergence=divergence, **both, **more)


def cppo(**more: Any) -> dict[str, Any]:
  """Overrides of CPPO with Binary TV, except for `more`."""
  own = {'rule': 'cppo', 'w_min': 0.8, 'weight_order': 'linear'}
  own |= {'budget': 0.015, 'divergence': 'binary_tv', **more}
  delta = own.pop('delta', 0.15)
  return ruled(own.pop('rule'), delta_low=delta, delta_high=delta, **own)


# Methods of the papers, under the names in their figures.
METHODS = {
  'PG-IS': ruled('none'),
  'PG-TIS': ruled('none', ratio_cap=3.0),
  'MiniRL': clip(anchor='recomputed'),
  'MiniRL-TIS': clip(anchor='recomputed', ratio_cap=3.0),
  'GRPO-ClipHigher': clip(),
  'DPPO-Binary-TV': bound('binary_tv', 0.2),
  'DPPO-Binary-KL': bound('binary_kl', 0.05),
  'DPPO-TopK-TV': bound('topk_tv', 0.2),
  'DPPO-TopK-KL': bound('topk_kl', 0.05),
  'CPPO': cppo(),
}
DPPO = tuple(name for name in METHODS if name.startswith('DPPO'))


def shrunk(config: Any) -> Any:
  """Config with two steps of a tiny policy: a smoke test."""
  config.num_steps = 2
  config.ledger.every_n_steps = 1
  config.optimizer.learning_rate = 1e-3  # The program is that of others.
  config.data.num_prompts = 4
  config.data.group_size = 4
  config.model.d_model = 16
  config.model.head_dim = 8
  config.model.d_ff = 32
  config.sampling.integrity_every_n_steps = 0  # Fewer programs.
  config.sft.num_steps = 0
  config.model.num_layers = 1
  config.model.scan_unroll = 1
  config.learner.num_minibatches = 2
  config.learner.share_prompt_prefix = False  # Half the time to compile.
  config.evaluation.num_prompts = 8
  config.evaluation.final_num_prompts = 8
  return config


def enlarged(config: Any) -> Any:
  """Config with 25 M parameters and more steps, for one accelerator."""
  config.num_steps = 200
  config.data.num_prompts = 128
  config.data.group_size = 16
  config.model.num_layers = 8
  config.model.d_model = 512
  config.model.num_heads = 8
  config.model.num_kv_heads = 8
  config.model.head_dim = 64
  config.model.d_ff = 1536
  config.sft.num_steps = 600
  config.sft.learning_rate = 5e-4
  config.optimizer.learning_rate = 1e-4
  return config


def tiers(
  config: Callable[[], Any], *only_in_smoke: str, cpu: Sequence[str] = ()
) -> dict[str, Tier]:
  """Tiers of a figure.

  Args:
    config: of the cpu tier, from which the others are derived.
    *only_in_smoke: variants of the smoke tier.
    cpu: variants of the cpu tier; () for all.
  """
  small, big = lambda: shrunk(config()), lambda: enlarged(config())
  return {
    'smoke': Tier(config=small, seeds=(0,), only=only_in_smoke),
    'cpu': Tier(config=config, seeds=SEEDS, only=cpu),
    'gpu': Tier(config=big, seeds=SEEDS),
  }


def stale_tiers(*only_in_smoke: str) -> dict[str, Tier]:
  """Tiers of a figure on stale data; see `tiers`."""
  return tiers(stale_digits.get_config, *only_in_smoke)


# CPPO, its single mechanisms, and its variants (CPPO Fig. 5, 6).
CPPO_PARTS = {
  'DPPO': bound('binary_tv', 0.15),
  'CPPO': METHODS['CPPO'],
  'CPPO-P90': cppo(rule='cppo_dynamic', budget=0.02),
  'weights': cppo(budget=math.inf),
  'budget': cppo(w_min=1.0),
  'shuffled': cppo(weight_order='shuffled'),
  'soft': cppo(rule='cppo_soft'),
  'KL': cppo(divergence='binary_kl', delta=0.1, budget=0.002),
  'Top-K': cppo(divergence='topk_tv'),
  'budget .03': cppo(budget=0.03),
  'w_min .6': cppo(w_min=0.6),
}
