"""Commands of the papers' own runs, printed by --tier=pod.

tests/testdata/papers/settings.json has the settings stated by the papers.
"""

from collections.abc import Mapping
from typing import Any


def pod(*runs: str, config: str, **overrides: Any) -> tuple[str, ...]:
  """Commands of a paper's own setting, one per run.

  Args:
    *runs: keys of `PRESETS`, each optionally followed by its overrides:
      'cppo_dynamic trust_region.w_min=0.6'.
    config: recipe of those runs, in configs/.
    **overrides: shared by all, '__' for the dot: `data__group_size=8`.
  """
  shared = [f'{k.replace("__", ".")}={v}' for k, v in overrides.items()]
  lines = []
  for run in runs:
    preset, *own = run.split()
    # Each has its own folder, named after its overrides.
    changed = [
      key.partition('=')[0].rpartition('.')[2] + '_' + key.partition('=')[2]
      for key in (*shared, *own)
      if '/' not in key
    ]
    words = [
      f'dppo train --config={config}:{preset}',
      *(f'--config.{key}' for key in (*shared, *own)),
      f'--workdir=runs/{"-".join([config, preset, *changed])}',
    ]
    lines.append(' '.join(words))
  return tuple(lines)


def _every(values: tuple[float, ...], low: str, high: str) -> list[str]:
  """Override text 'low=v high=v' per value."""
  return [f'trust_region.{low}={v} trust_region.{high}={v}' for v in values]


_SANITY = 'sanity_r1_distill_1_5b'  # DPPO section 5.
_MOE_BASE = 'qwen3_30b_a3b_base'  # DPPO table 1, MoE Base.
_SCALED = ('grpo_clip_higher', 'cispo', 'dppo_binary_kl', 'dppo_binary_tv')
# CPPO table 1: columns of Base models, and rows.
_BASES = (
  'qwen3_1_7b_base',
  'cppo_qwen3_8b_base',
  'cppo_qwen3_30b_a3b_base',
)
_ROWS = (
  'grpo_clip_higher',
  'minpro',
  'cispo',
  'dppo_topk_tv',
  'trm_max',
  'trm_mean',
  'cppo_dynamic',
)
_THINKING = '~/models/Qwen/Qwen3-30B-A3B'

# Commands by figure. Figures of sections without a reported run have none.
RUNS: Mapping[str, tuple[str, ...]] = {
  # DPPO figures 1 and 8; figure 2 is a rollout of the same model.
  'ratio_vs_tv': pod(*_SCALED, config=_MOE_BASE),
  # Figure 3.
  'stability': pod(
    'pg_is',
    'pg_tis',
    'minirl',
    'minirl_tis',
    'grpo_clip_higher',
    'dppo_binary_tv',
    'dppo_binary_kl',
    config=_SANITY,
  ),
  # Figure 4.
  'anchor': pod('dppo_binary_kl', 'dppo_binary_kl_recomputed', config=_SANITY),
  # Figure 5.
  'bad_updates': pod(
    'pg_is', 'mask_0.5', 'mask_0.8', 'mask_0.5_recomputed', config=_SANITY
  ),
  # Figures 7 and, with alpha up to .7, 6.
  'relaxation': pod(
    'grpo_clip_higher',
    'relax_both',
    'relax_high',
    'relax_low',
    *(
      f'relax_both {keys}'
      for keys in _every((0.3, 0.5, 0.7), 'alpha_low', 'alpha_high')
    ),
    config='qwen3_1_7b_base',
    num_steps=500,
    data__dynamic_sampling='off',
  ),
  # Figures 11 and 18; and 12, of an RLHF run.
  'approximation': (
    *pod(*_SCALED, 'dppo_topk_kl', 'dppo_topk_tv', config=_MOE_BASE),
    *pod('grpo', 'dppo_binary_tv', config='rlhf_qwen3_4b'),
  ),
  # Figure 19.
  'sensitivity': pod(
    *(
      f'dppo_binary_tv {keys}'
      for keys in _every((0.1, 0.15, 0.2), 'delta_low', 'delta_high')
    ),
    *(
      f'dppo_binary_kl {keys}'
      for keys in _every((0.05, 0.1, 0.15), 'delta_low', 'delta_high')
    ),
    'grpo_clip_higher trust_region.clip_high=0.2',
    'grpo_clip_higher trust_region.clip_high=0.28',
    config=_MOE_BASE,
    sampling__max_completion_length=8192,
  ),
  # Appendix D.
  'clipped_tokens': pod('grpo_clip_higher', config='qwen3_4b_base'),
  # CPPO figures 4, 5 and 6.
  'cppo_ablation': (
    *(run for base in _BASES for run in pod(*_ROWS, config=base)),
    *pod(
      'dppo_topk_tv',
      'cppo',
      'cppo_no_weights',
      'cppo_no_budget',
      'cppo_shuffled',
      'cppo_soft',
      config='qwen3_1_7b',
    ),
    *pod(
      'cppo',
      'cppo_dynamic trust_region.w_min=0.6',
      'cppo_kl',
      'trm_max_mean',
      'cppo_dynamic trust_region.divergence=binary_tv',
      config='qwen3_1_7b_base',
    ),
  ),
  # Figure 2, of the thinking model after 200 steps, and figure 7.
  'cppo_budget': (
    *pod(
      'grpo_clip_higher',
      config='cppo_qwen3_30b_a3b_base',
      num_steps=200,
      model__pretrained=_THINKING,
      data__tokenizer=_THINKING,
      ledger__every_n_steps=200,
    ),
    *(run for base in _BASES for run in pod('cppo_dynamic', config=base)),
  ),
  'large_vocabulary': (),
  'rare_token': (),
  'fair_trial': (),
}
