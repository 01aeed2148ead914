"""The methods and the tiers that figures share."""

from collections.abc import Callable, Sequence
from typing import Any

from configs import presets, stale_digits
from dppo_jax.runtime.figures.figure import Tier

PRESETS = presets.PRESETS
# CPPO's runs measure Top-K TV and so do its presets. Figures of the small tiers
# measure Binary TV, which reads no record, as the results that are kept do.
BINARY_TV = {'trust_region.divergence': 'binary_tv'}
# Methods of the papers by the names that their figures give them.
METHODS = {
  name: presets.PRESETS[key]
  for name, key in (
    ('PG-IS', 'pg_is'),
    ('PG-TIS', 'pg_tis'),
    ('MiniRL', 'minirl'),
    ('MiniRL-TIS', 'minirl_tis'),
    ('GRPO-ClipHigher', 'grpo_clip_higher'),
    ('DPPO-Binary-TV', 'dppo_binary_tv'),
    ('DPPO-Binary-KL', 'dppo_binary_kl'),
    ('DPPO-TopK-TV', 'dppo_topk_tv'),
    ('DPPO-TopK-KL', 'dppo_topk_kl'),
  )
}
METHODS['CPPO'] = {**PRESETS['cppo'], **BINARY_TV}
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
    'smoke': Tier(config=small, num_seeds=1, only=only_in_smoke),
    'cpu': Tier(config=config, num_seeds=3, only=cpu),
    'gpu': Tier(config=big, num_seeds=3),
  }


def stale_tiers(*only_in_smoke: str) -> dict[str, Tier]:
  """The tiers of a figure on stale data; see `tiers`."""
  return tiers(stale_digits.get_config, *only_in_smoke)


def thresholds(
  preset: str, what: str, low: float, high: float
) -> dict[str, Any]:
  """A preset with other bounds.

  Args:
    preset: a key of `PRESETS`.
    what: 'delta' or 'clip'.
    low: for A < 0.
    high: for A > 0.
  """
  ends = {f'trust_region.{what}_low': low, f'trust_region.{what}_high': high}
  return {**PRESETS[preset], **ends}


# CPPO, its mechanisms alone, and its neighbors (CPPO Fig. 5, 6).
_CPPO = METHODS['CPPO']
CPPO_PARTS = {
  'DPPO': thresholds('dppo_binary_tv', 'delta', 0.15, 0.15),
  'CPPO': _CPPO,
  'CPPO-P90': {**PRESETS['cppo_dynamic'], **BINARY_TV},
  'weights': {**PRESETS['cppo_no_budget'], **BINARY_TV},
  'budget': {**PRESETS['cppo_no_weights'], **BINARY_TV},
  'shuffled': {**PRESETS['cppo_shuffled'], **BINARY_TV},
  'soft': {**PRESETS['cppo_soft'], **BINARY_TV},
  'KL': {**PRESETS['cppo_kl'], 'trust_region.divergence': 'binary_kl'},
  'Top-K': PRESETS['cppo'],
  'budget .03': {**_CPPO, 'trust_region.budget': 0.03},
  'w_min .6': {**_CPPO, 'trust_region.w_min': 0.6},
}
