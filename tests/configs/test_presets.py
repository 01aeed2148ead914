"""Presets against the tables of the papers, written out once more."""

import math

import pytest

from dppo_jax.configs import default, presets, quickstart, tiny
from dppo_jax.ops.trust_regions import TRUST_REGIONS
from dppo_jax.runtime.config.build import build_experiment

_INF = math.inf
_VOCABULARY = 16  # Of the task of configs/tiny.py.

# Rule, anchor, cap; then the thresholds that the rule reads.
_PAPERS = {
  # DPPO, arXiv:2602.04879: the methods it compares.
  'pg_is': ('none', 'rollout', _INF, {}),
  'pg_tis': ('none', 'rollout', 3.0, {}),
  'cispo': ('none', 'rollout', 3.0, {}),
  'ppo': ('ratio_clip', 'rollout', _INF, {'clip_low': 0.2, 'clip_high': 0.2}),
  'grpo': ('ratio_clip', 'rollout', _INF, {'clip_low': 0.2, 'clip_high': 0.2}),
  'grpo_clip_higher': (
    'ratio_clip',
    'rollout',
    _INF,
    {'clip_low': 0.2, 'clip_high': 0.28},
  ),
  'dual_clip': (
    'dual_clip',
    'rollout',
    _INF,
    {'clip_low': 0.2, 'clip_high': 0.28, 'dual_clip': 3.0},
  ),
  'minirl': (
    'ratio_clip',
    'recomputed',
    _INF,
    {'clip_low': 0.2, 'clip_high': 0.28},
  ),
  'minirl_tis': (
    'ratio_clip',
    'recomputed',
    3.0,
    {'clip_low': 0.2, 'clip_high': 0.28},
  ),
  'relax_high': (
    'ratio_clip',
    'rollout',
    _INF,
    {'clip_low': 0.2, 'clip_high': 0.28, 'alpha_low': 0.0, 'alpha_high': 0.1},
  ),
  'relax_low': (
    'ratio_clip',
    'rollout',
    _INF,
    {'clip_low': 0.2, 'clip_high': 0.28, 'alpha_low': 0.1, 'alpha_high': 0.0},
  ),
  'relax_both': (
    'ratio_clip',
    'rollout',
    _INF,
    {'clip_low': 0.2, 'clip_high': 0.28, 'alpha_low': 0.1, 'alpha_high': 0.1},
  ),
  'dppo_binary_tv': ('divergence', 'rollout', _INF, {'delta': 0.2}),
  'dppo_binary_kl': ('divergence', 'rollout', _INF, {'delta': 0.05}),
  'dppo_topk_tv': ('divergence', 'rollout', _INF, {'delta': 0.2}),
  'dppo_topk_kl': ('divergence', 'rollout', _INF, {'delta': 0.05}),
  'dppo_exact_tv': ('divergence', 'rollout', _INF, {'delta': 0.2}),
  'dppo_exact_kl': ('divergence', 'rollout', _INF, {'delta': 0.05}),
  'c_dppo': ('divergence', 'rollout', _INF, {'delta': 0.2}),
  'dppo_binary_tv_recomputed': (
    'divergence',
    'recomputed',
    _INF,
    {'delta': 0.2},
  ),
  'dppo_binary_kl_recomputed': (
    'divergence',
    'recomputed',
    _INF,
    {'delta': 0.05},
  ),
  'mask_0.5': ('mask_bad_updates', 'rollout', _INF, {'delta_low': 0.5}),
  'mask_0.8': ('mask_bad_updates', 'rollout', _INF, {'delta_low': 0.8}),
  'mask_0.5_recomputed': (
    'mask_bad_updates',
    'recomputed',
    _INF,
    {'delta_low': 0.5},
  ),
  # CPPO, arXiv:2606.10968, and what it is compared with.
  'cppo': (
    'cppo',
    'rollout',
    _INF,
    {'delta': 0.15, 'w_min': 0.8, 'budget': 0.015, 'weight_order': 'linear'},
  ),
  'cppo_dynamic': (
    'cppo_dynamic',
    'rollout',
    _INF,
    {'delta': 0.15, 'w_min': 0.8, 'budget': 0.02, 'weight_order': 'linear'},
  ),
  'cppo_no_weights': (
    'cppo',
    'rollout',
    _INF,
    {'delta': 0.15, 'w_min': 1.0, 'budget': 0.015, 'weight_order': 'linear'},
  ),
  'cppo_no_budget': (
    'cppo',
    'rollout',
    _INF,
    {'delta': 0.15, 'w_min': 0.8, 'budget': _INF, 'weight_order': 'linear'},
  ),
  'cppo_shuffled': (
    'cppo',
    'rollout',
    _INF,
    {'delta': 0.15, 'w_min': 0.8, 'budget': 0.015, 'weight_order': 'shuffled'},
  ),
  'cppo_soft': (
    'cppo_soft',
    'rollout',
    _INF,
    {'delta': 0.15, 'w_min': 0.8, 'budget': 0.015, 'weight_order': 'linear'},
  ),
  'cppo_kl': (
    'cppo',
    'rollout',
    _INF,
    {'delta': 0.1, 'w_min': 0.8, 'budget': 0.002, 'weight_order': 'linear'},
  ),
  'trm_max': ('trm_max', 'rollout', _INF, {'delta': 0.1}),
  'trm_mean': ('trm_mean', 'rollout', _INF, {'delta': 0.002}),
  'trm_max_mean': (
    'trm_max_mean',
    'rollout',
    _INF,
    {'delta': 0.1, 'budget': 0.002},
  ),
  'minpro': ('none', 'rollout', _INF, {}),
  'gspo': ('gspo', 'rollout', _INF, {'clip_low': 3e-4, 'clip_high': 4e-4}),
  'sapo': ('sapo', 'rollout', _INF, {'tau_low': 1.05, 'tau_high': 1.0}),
  # Successors of 2026.
  'dppo_predictive': (
    'divergence',
    'rollout',
    _INF,
    {'delta': 0.15, 'direction': 'predictive'},
  ),
  'drpo': ('drpo', 'rollout', _INF, {'delta': 0.15}),
  'drpo_code': ('drpo', 'rollout', _INF, {'delta': 12.5}),
  'spo': ('spo', 'rollout', _INF, {'soft_clip': 0.2}),
  'vespo': (
    'vespo',
    'rollout',
    _INF,
    {'power_low': 3.0, 'power_high': 2.0, 'decay_low': 2.0, 'decay_high': 3.0},
  ),
  'ipo': ('divergence', 'rollout', _INF, {'delta': 0.1, 'direction': 'any'}),
  'icepop': (
    'ratio_clip',
    'rollout',
    _INF,
    {'clip_low': 0.5, 'clip_high': 4.0, 'direction': 'any'},
  ),
  'flash_reinforce': ('trm_mean', 'rollout', _INF, {'delta': 0.05}),
  'estr': (
    'estr',
    'rollout',
    _INF,
    {'tau_entropy': 0.1, 'direction': 'any'},
  ),
  'centered_pg': ('none', 'rollout', _INF, {}),
  'centered_tis': ('none', 'rollout', 2.0, {}),
  'centered_mis': (
    'ratio_clip',
    'rollout',
    _INF,
    {'clip_low': 0.5, 'clip_high': 4.0, 'direction': 'any'},
  ),
  'centered_exact': ('none', 'rollout', 2.0, {}),
  'centered_dppo': ('divergence', 'rollout', _INF, {'delta': 0.2}),
}
# Centering and whose M masks the centre.
_CENTERED = {
  'centered_pg': ('topk', 'token'),
  'centered_tis': ('topk', 'token'),
  'centered_mis': ('topk', 'candidate'),
  'centered_exact': ('exact', 'token'),
  'centered_dppo': ('topk', 'candidate'),
}
_MEASURED = {
  'dppo_binary_tv': 'binary_tv',
  'dppo_binary_kl': 'binary_kl',
  'dppo_topk_tv': 'topk_tv',
  'dppo_topk_kl': 'topk_kl',
  'dppo_exact_tv': 'exact_tv',
  'dppo_exact_kl': 'exact_kl',
  'c_dppo': 'certified_tv',
  'dppo_binary_tv_recomputed': 'binary_tv',
  'dppo_binary_kl_recomputed': 'binary_kl',
  'cppo': 'topk_tv',
  'cppo_dynamic': 'topk_tv',
  'cppo_no_weights': 'topk_tv',
  'cppo_no_budget': 'topk_tv',
  'cppo_shuffled': 'topk_tv',
  'cppo_soft': 'topk_tv',
  'cppo_kl': 'topk_kl',
  'trm_max': 'exact_kl',
  'trm_mean': 'exact_kl',
  'trm_max_mean': 'exact_kl',
  'dppo_predictive': 'topk_kl',
  'ipo': 'binary_tv',
  'flash_reinforce': 'binary_kl',
  'centered_dppo': 'topk_tv',
}
_each = pytest.mark.parametrize('preset', presets.PRESETS)


def _build(preset, **overrides):
  """The experiment of a preset, its keys overridden as on a command line."""
  config = tiny.get_config(preset)
  config.update_from_flattened_dict(overrides)
  return build_experiment(config, num_devices=1)


@_each
def test_preset_is_its_papers(preset):
  loss = _build(preset).loss
  rule, anchor, cap, thresholds = _PAPERS[preset]
  assert (loss.rule, loss.anchor, loss.ratio_cap) == (rule, anchor, cap)
  assert loss.ratio_floor == 0.0
  assert loss.loss_form == 'score'
  weighed = {'gspo': 'sequence', 'minpro': 'least_prefix'}
  weighed |= {'centered_pg': 'none', 'vespo': 'none'}
  centering = (loss.centering, loss.centering_mask)
  assert centering == _CENTERED.get(preset, ('off', 'token'))
  assert loss.importance == weighed.get(preset, 'token')
  assert loss.top_k_set == 'union'
  thresholds = dict(thresholds)
  if 'delta' in thresholds:
    both = thresholds.pop('delta')
    thresholds |= {'delta_low': both, 'delta_high': both}
  subject = dict(
    direction='away', advantage_sign='both', alpha_low=0.0, alpha_high=0.0
  )
  for field, value in (subject | thresholds).items():
    assert getattr(loss.bounds, field) == value, field
  # Nothing that the rule reads is left out of the table above.
  row = TRUST_REGIONS[rule]
  assert set(row.reads) <= {*subject, *thresholds}
  assert row.reads_divergence == (preset in _MEASURED)
  if row.reads_divergence:
    assert loss.divergence == _MEASURED[preset]


@_each
def test_preset_names_keys_that_exist(preset):
  known = default.get_config()
  for path, value in presets.PRESETS[preset].items():
    section, key = path.split('.')
    assert type(known[section][key]) is type(value), path


@pytest.mark.parametrize('preset', ['dppo_exact_tv', 'dppo_exact_kl', 'c_dppo'])
def test_exact_presets_record_the_states(preset):
  assert _build(preset).sampling.with_hidden
  assert _build('centered_exact').sampling.with_hidden
  again = _build(preset, **{'trust_region.anchor': 'recomputed'})
  assert not again.sampling.with_hidden


def test_an_override_after_a_preset_wins():
  key = {'trust_region.delta_low': 0.07}
  loss = _build('dppo_topk_tv', **key).loss
  assert (loss.bounds.delta_low, loss.bounds.delta_high) == (0.07, 0.2)


@pytest.mark.parametrize('module', [default, quickstart, tiny])
def test_a_preset_changes_its_keys_alone(module):
  plain = module.get_config().to_dict()
  preset = module.get_config('cppo_kl').to_dict()
  for section, values in plain.items():
    if not isinstance(values, dict):
      assert preset[section] == values
      continue
    for key, value in values.items():
      path = f'{section}.{key}'
      assert preset[section][key] == presets.PRESETS['cppo_kl'].get(path, value)
  assert preset['trust_region']['rule'] == 'cppo'
  assert preset['trust_region']['divergence'] == 'topk_kl'


def test_no_preset_is_the_config_itself():
  assert default.get_config('').to_dict() == default.get_config().to_dict()


@pytest.mark.parametrize('module', [default, quickstart, tiny])
def test_unknown_preset_names_the_nearest(module):
  match = r"--config: unknown preset 'dpo_topk_tv'; did you mean 'dppo_topk_tv'"
  with pytest.raises(ValueError, match=match):
    module.get_config('dpo_topk_tv')
  with pytest.raises(ValueError, match=r"unknown preset '§'\. Known: c_dppo"):
    module.get_config('§')


@_each
def test_a_rule_that_asks_for_no_side_refuses_one(preset):
  rule = presets.PRESETS[preset]['trust_region.rule']
  overrides = {
    'advantage_sign': 'negative',
    'direction': 'any',
    'alpha_low': 0.1,
  }
  for key, value in overrides.items():
    override = {f'trust_region.{key}': value}
    if not TRUST_REGIONS[rule].gated and rule != 'dual_clip':
      with pytest.raises(
        ValueError, match=rf"trust_region\.{key}: got .* rule '{rule}' decides"
      ):
        _build(preset, **override)
    else:
      assert getattr(_build(preset, **override).loss.bounds, key) == value


@pytest.mark.parametrize('rule', ['trm_mean', 'gspo'])
def test_a_rule_on_responses_says_so(rule):
  with pytest.raises(ValueError, match='decides on whole sequences'):
    _build(rule, **{'trust_region.advantage_sign': 'positive'})


@pytest.mark.parametrize('key', ['delta_low', 'delta_high'])
def test_a_soft_gate_needs_a_bound(key):
  override = {f'trust_region.{key}': 0.0}
  match = rf"trust_region\.{key}: got 0\.0; rule 'cppo_soft' .* above 0"
  with pytest.raises(ValueError, match=match):
    _build('cppo_soft', **override)
  assert getattr(_build('cppo', **override).loss.bounds, key) == 0.0


def test_the_floor_of_the_ratio_is_below_its_cap():
  match = r'objective\.ratio_floor: got 3\.5; at most objective\.ratio_cap=3\.0'
  with pytest.raises(ValueError, match=match):
    _build('cispo', **{'objective.ratio_floor': 3.5})
  loss = _build('cispo', **{'objective.ratio_floor': 3.0}).loss
  assert (loss.ratio_floor, loss.ratio_cap) == (3.0, 3.0)
