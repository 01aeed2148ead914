"""The methods of the papers, each with its thresholds.

`--config=configs/quickstart.py:grpo` applies a preset before the overrides of
the command line, so that any of its keys can still be overridden. A preset
sets every axis that defines its method: divergence, anchor, rule, cap.
Thresholds specific to a paper's recipe are in configs/thresholds.py.

Presets do not set what is not part of a method: advantages, aggregation, and K
of the Top-K divergences, `sampling.top_k`: 20 in both papers and by default, at
most V.

DPPO is arXiv:2602.04879, CPPO arXiv:2606.10968.
"""

from collections.abc import Mapping
import math
from typing import Any

import ml_collections

from dppo_jax.suggestions import suggest

Preset = dict[str, Any]

# Base of every preset; the divergence is measured even without a rule.
_PLAIN: Preset = {
  'trust_region.rule': 'none',
  'trust_region.anchor': 'rollout',
  'trust_region.direction': 'away',
  'trust_region.advantage_sign': 'both',
  'trust_region.alpha_low': 0.0,
  'trust_region.alpha_high': 0.0,
  'trust_region.top_k_set': 'union',
  'trust_region.predictive_tail': 'aggregated',
  'objective.loss_form': 'score',
  'objective.importance': 'token',
  'objective.ratio_cap': math.inf,
  'objective.ratio_floor': 0.0,
  'objective.centering': 'off',
  'objective.centering_mask': 'token',
}


def _clip(low: float, high: float, **more: Any) -> Preset:
  return _PLAIN | {
    'trust_region.rule': 'ratio_clip',
    'trust_region.clip_low': low,
    'trust_region.clip_high': high,
    **more,
  }


def _bound(divergence: str, delta: float, **more: Any) -> Preset:
  return _PLAIN | {
    'trust_region.rule': 'divergence',
    'trust_region.divergence': divergence,
    'trust_region.delta_low': delta,
    'trust_region.delta_high': delta,
    **more,
  }


def _cppo(rule: str, **more: Any) -> Preset:
  settings = {
    'trust_region.rule': rule,
    'trust_region.w_min': 0.8,
    'trust_region.weight_order': 'linear',
    'trust_region.budget': 0.015,
    **more,
  }
  return _bound('topk_tv', 0.15, **settings)


_RECOMPUTED = {'trust_region.anchor': 'recomputed'}
_PREDICTIVE = {'trust_region.direction': 'predictive'}
_SIGN_BLIND = {'trust_region.direction': 'any'}
_CENTERED = {'objective.centering': 'topk'}
_BY_CANDIDATE = {'objective.centering_mask': 'candidate'}
_ICEPOP = _clip(0.5, 4.0, **_SIGN_BLIND)

PRESETS: Mapping[str, Preset] = {
  # No trust region.
  'pg_is': _PLAIN,
  'pg_tis': _PLAIN | {'objective.ratio_cap': 3.0},
  'cispo': _PLAIN | {'objective.ratio_cap': 3.0},
  # Ratio clips. GRPO's group advantage is `advantages.estimator`.
  'ppo': _clip(0.2, 0.2),
  'grpo': _clip(0.2, 0.2),
  'grpo_clip_higher': _clip(0.2, 0.28),
  'dual_clip': _clip(0.2, 0.28)
  | {'trust_region.rule': 'dual_clip', 'trust_region.dual_clip': 3.0},
  'minirl': _clip(0.2, 0.28, **_RECOMPUTED),
  'minirl_tis': _clip(0.2, 0.28, **_RECOMPUTED, **{'objective.ratio_cap': 3.0}),
  'relax_high': _clip(0.2, 0.28, **{'trust_region.alpha_high': 0.1}),
  'relax_low': _clip(0.2, 0.28, **{'trust_region.alpha_low': 0.1}),
  'relax_both': _clip(
    0.2,
    0.28,
    **{'trust_region.alpha_low': 0.1, 'trust_region.alpha_high': 0.1},
  ),
  # DPPO (Table of section 5, and its ablations).
  'dppo_binary_tv': _bound('binary_tv', 0.2),
  'dppo_binary_kl': _bound('binary_kl', 0.05),
  'dppo_topk_tv': _bound('topk_tv', 0.2),
  'dppo_topk_kl': _bound('topk_kl', 0.05),
  'dppo_exact_tv': _bound('exact_tv', 0.2),
  'dppo_exact_kl': _bound('exact_kl', 0.05),
  # Its masks are those of dppo_exact_tv; C-DPPO's own bound was not read.
  'c_dppo': _bound('certified_tv', 0.2),
  'dppo_binary_tv_recomputed': _bound('binary_tv', 0.2, **_RECOMPUTED),
  'dppo_binary_kl_recomputed': _bound('binary_kl', 0.05, **_RECOMPUTED),
  'mask_0.5': _PLAIN
  | {'trust_region.rule': 'mask_bad_updates', 'trust_region.delta_low': 0.5},
  'mask_0.8': _PLAIN
  | {'trust_region.rule': 'mask_bad_updates', 'trust_region.delta_low': 0.8},
  'mask_0.5_recomputed': _PLAIN
  | {
    'trust_region.rule': 'mask_bad_updates',
    'trust_region.delta_low': 0.5,
    **_RECOMPUTED,
  },
  # CPPO, with Top-K TV as in its runs, and its baselines.
  'cppo': _cppo('cppo'),
  'cppo_dynamic': _cppo('cppo_dynamic', **{'trust_region.budget': 0.02}),
  'cppo_no_weights': _cppo('cppo', **{'trust_region.w_min': 1.0}),
  'cppo_no_budget': _cppo('cppo', **{'trust_region.budget': math.inf}),
  'cppo_shuffled': _cppo('cppo', **{'trust_region.weight_order': 'shuffled'}),
  'cppo_soft': _cppo('cppo_soft'),
  'cppo_kl': _cppo('cppo', **{'trust_region.budget': 0.002})
  | {
    'trust_region.divergence': 'topk_kl',
    'trust_region.delta_low': 0.1,
    'trust_region.delta_high': 0.1,
  },
  # KL of the full distributions, by definition.
  'trm_max': _bound('exact_kl', 0.1, **{'trust_region.rule': 'trm_max'}),
  'trm_mean': _bound('exact_kl', 0.002, **{'trust_region.rule': 'trm_mean'}),
  'trm_max_mean': _bound(
    'exact_kl',
    0.1,
    **{
      'trust_region.rule': 'trm_max_mean',
      'trust_region.budget': 0.002,
    },
  ),
  # Importance weight: least ratio of the prefix; its truncation is unknown.
  'minpro': _PLAIN | {'objective.importance': 'least_prefix'},
  # Sequence-level and soft clips.
  'gspo': _clip(
    3e-4,
    4e-4,
    **{
      'trust_region.rule': 'gspo',
      'objective.importance': 'sequence',
      'objective.aggregation': 'sequence_mean_token_mean',
    },
  ),
  'sapo': _PLAIN
  | {
    'trust_region.rule': 'sapo',
    'trust_region.tau_low': 1.05,
    'trust_region.tau_high': 1.0,
    'objective.aggregation': 'sequence_mean_token_mean',
  },
  # Successors of 2026. DPPO's authors: direction by the rate (2607.10848), and
  # DRPO (2606.09821) with the bound of its analysis and that of its code.
  'dppo_predictive': _bound('topk_kl', 0.15, **_PREDICTIVE),
  'drpo': _bound('binary_tv', 0.15, **{'trust_region.rule': 'drpo'}),
  'drpo_code': _bound('binary_tv', 12.5, **{'trust_region.rule': 'drpo'}),
  'spo': _PLAIN | {'trust_region.rule': 'spo', 'trust_region.soft_clip': 0.2},
  # Whole responses, weighed by the product of their ratios (2602.10693).
  'vespo': _PLAIN
  | {
    'trust_region.rule': 'vespo',
    'trust_region.power_low': 3.0,
    'trust_region.power_high': 2.0,
    'trust_region.decay_low': 2.0,
    'trust_region.decay_high': 3.0,
    'objective.importance': 'none',
  },
  # Sign-blind: prime-rl's default of August 2026; IcePop (2510.18855).
  'ipo': _bound('binary_tv', 0.1, **_SIGN_BLIND),
  'icepop': _ICEPOP,
  # Whole responses by mean Binary KL; its bound was not read.
  'flash_reinforce': _bound(
    'binary_kl', 0.05, **{'trust_region.rule': 'trm_mean'}
  ),
  # By the entropy (2607.22186); its bound was not read.
  'estr': _PLAIN
  | _SIGN_BLIND
  | {'trust_region.rule': 'estr', 'trust_region.tau_entropy': 0.1},
  # Score centering (2609.20807) on each of its weights, and with DPPO. The
  # paper has K = 128: sampling.top_k.
  'centered_pg': _PLAIN | _CENTERED | {'objective.importance': 'none'},
  'centered_tis': _PLAIN | _CENTERED | {'objective.ratio_cap': 2.0},
  'centered_mis': _ICEPOP | _CENTERED | _BY_CANDIDATE,
  'centered_exact': _PLAIN
  | {'objective.centering': 'exact', 'objective.ratio_cap': 2.0},
  'centered_dppo': _bound('topk_tv', 0.2, **_CENTERED, **_BY_CANDIDATE),
}


def apply(
  config: ml_collections.ConfigDict, preset: str
) -> ml_collections.ConfigDict:
  """Sets the keys of a preset and returns the config.

  Args:
    config: with all keys, locked or not.
    preset: a key of `PRESETS`; '' changes nothing.

  Raises:
    ValueError: no such preset; the message suggests the nearest.
  """
  if not preset:
    return config
  if preset not in PRESETS:
    known = sorted(PRESETS)
    raise ValueError(
      f'--config: unknown preset {preset!r}{suggest(preset, known)}'
    )
  config.update_from_flattened_dict(dict(PRESETS[preset]))
  return config
