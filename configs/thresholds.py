"""Thresholds of the papers' runs, by recipe and divergence.

A preset defines a method, with the thresholds of most runs of its paper. A
recipe may have others: delta .15 for TV where the preset has .2. They are
defined here, so that `configs/X.py:METHOD` is METHOD as it was run on X, and
`configs/X.py` is X with its default method.

DPPO is arXiv:2602.04879, CPPO arXiv:2606.10968.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import ml_collections

from dppo_jax.configs import presets

_PREFIX_RULES = ('cppo', 'cppo_dynamic', 'cppo_soft')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """Thresholds of a recipe.

  Attributes:
    method: default preset of the recipe.
    tv: delta of token-level rules on TV, for any approximation.
    kl: delta of DPPO's token-level rule on KL; CPPO's rule has that of TRM.
    budget: delta_b of CPPO's fixed budget; None keeps the preset's.
    least_budget: delta_b_min of its dynamic budget; None keeps the preset's.
    of_all: keys for every method.
    of_method: keys for one method, by preset.
  """

  method: str
  tv: float = 0.2
  kl: float = 0.05
  budget: float | None = None
  least_budget: float | None = None
  of_all: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  of_method: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )


# DPPO appendix C.1: a cap for truncated methods only, clip .2 and .28.
_SANITY = Setting(method='dppo_binary_tv', tv=0.15)
# DPPO appendix E: C = 5 and clip_high .27, for all methods.
_SCALING = Setting(
  method='dppo_binary_tv',
  of_all={'objective.ratio_cap': 5.0},
  of_method={'grpo_clip_higher': {'trust_region.clip_high': 0.27}},
)
# CPPO table 3 and appendix D. The bounds of CISPO's asymmetric clip of pi / mu
# are not published; these are those of the paper's ratio clip.
_CPPO_DENSE = Setting(
  method='cppo_dynamic',
  tv=0.15,
  budget=0.02,
  least_budget=0.02,
  of_method={
    'cispo': {'objective.ratio_floor': 0.8, 'objective.ratio_cap': 1.28}
  },
)

# By the recipe's file. Configs of synthetic tasks have DPPO-TopK-TV, delta .2.
SETTINGS: Mapping[str, Setting] = {
  'sanity_r1_distill_1_5b': _SANITY,
  'qwen3_4b_base': _SANITY,
  'qwen3_8b_base': _SCALING,
  'qwen3_8b_base_32k': _SCALING,
  'qwen3_32b': _SCALING,
  'qwen3_30b_a3b_base': _SCALING,
  'qwen3_30b_a3b_base_r3': _SCALING,
  'qwen3_30b_a3b_base_lora': dataclasses.replace(_SCALING, tv=0.15),
  'rlhf_qwen3_4b': Setting(method='dppo_binary_tv'),
  'qwen3_1_7b': dataclasses.replace(
    _CPPO_DENSE, method='cppo', budget=0.015, least_budget=0.015
  ),
  # Fig. 6: .03 where the budget is fixed.
  'qwen3_1_7b_base': dataclasses.replace(_CPPO_DENSE, budget=0.03),
  'cppo_qwen3_8b_base': _CPPO_DENSE,
  'cppo_qwen3_30b_a3b_base': dataclasses.replace(_CPPO_DENSE, tv=0.2),
}


def apply(
  config: ml_collections.ConfigDict, recipe: str, preset: str = ''
) -> ml_collections.ConfigDict:
  """Config with a method's keys as it was run on a recipe.

  Args:
    config: with all keys, locked or not.
    recipe: a key of `SETTINGS`.
    preset: a key of `presets.PRESETS`; '' for the recipe's default method.

  Raises:
    ValueError: no such preset; the message suggests the nearest.
  """
  setting = SETTINGS[recipe]
  name = preset or setting.method
  presets.apply(config, name)
  config.update_from_flattened_dict(overrides(setting, name))
  return config


def overrides(setting: Setting, preset: str) -> dict[str, Any]:
  """Keys of a preset that a recipe overrides, by path.

  Args:
    setting: the recipe's.
    preset: a key of `presets.PRESETS`.
  """
  method = presets.PRESETS[preset]
  rule = method['trust_region.rule']
  measured = 'trust_region.divergence'
  kind = method.get(measured, '').rpartition('_')[2]
  found = dict(setting.of_all)
  if measured not in method:
    # It is only measured; so all methods of a recipe report the same one.
    found[measured] = presets.PRESETS[setting.method][measured]
  delta = None
  if kind == 'tv' and rule in ('divergence', *_PREFIX_RULES):
    delta = setting.tv
  elif kind == 'kl' and rule == 'divergence':
    delta = setting.kl
  if delta is not None:
    found['trust_region.delta_low'] = delta
    found['trust_region.delta_high'] = delta
  budget = setting.budget
  if rule == 'cppo_dynamic':
    budget = setting.least_budget
  budgeted = method.get('trust_region.budget') != float('inf')
  if kind == 'tv' and rule in _PREFIX_RULES and budgeted and budget is not None:
    found['trust_region.budget'] = budget
  return found | dict(setting.of_method.get(preset, {}))
