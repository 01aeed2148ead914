"""Methods on recipes: their own thresholds, whoever names them."""

import importlib

import pytest

from dppo_jax.configs import default, presets, quickstart, thresholds, tiny

_TOYS = (
  'quickstart',
  'stale_digits',
  'rare_token',
  'large_vocabulary',
  'long_recital',
  'tiny',
  'memory_1_7b',
)
_INF = float('inf')


def _config(name, preset=''):
  return importlib.import_module(f'dppo_jax.configs.{name}').get_config(preset)


@pytest.mark.parametrize('name', thresholds.SETTINGS)
def test_a_recipe_is_itself_with_its_own_method_named(name):
  own = thresholds.SETTINGS[name].method
  assert _config(name, own).to_dict() == _config(name).to_dict()


@pytest.mark.parametrize('name', _TOYS)
def test_toys_are_the_default_method(name):
  named = _config(name, 'dppo_topk_tv').to_dict()
  assert named == _config(name).to_dict()


@pytest.mark.parametrize(
  ('name', 'preset', 'delta', 'budget'),
  [
    ('qwen3_1_7b', 'cppo', 0.15, 0.015),
    ('qwen3_1_7b', 'dppo_topk_tv', 0.15, None),
    ('qwen3_1_7b', 'dppo_topk_kl', 0.05, None),
    ('qwen3_1_7b', 'cppo_no_budget', 0.15, _INF),
    ('qwen3_1_7b_base', 'cppo_dynamic', 0.15, 0.02),
    ('qwen3_1_7b_base', 'cppo', 0.15, 0.03),
    ('qwen3_1_7b_base', 'cppo_kl', 0.1, 0.002),
    ('qwen3_1_7b_base', 'trm_max_mean', 0.1, 0.002),
    ('qwen3_1_7b_base', 'trm_mean', 0.002, None),
    ('cppo_qwen3_30b_a3b_base', 'dppo_topk_tv', 0.2, None),
    ('cppo_qwen3_30b_a3b_base', 'cppo_dynamic', 0.2, 0.02),
    ('sanity_r1_distill_1_5b', 'dppo_topk_tv', 0.15, None),
    ('sanity_r1_distill_1_5b', 'dppo_binary_tv_recomputed', 0.15, None),
    ('sanity_r1_distill_1_5b', 'dppo_binary_kl_recomputed', 0.05, None),
    ('qwen3_30b_a3b_base', 'dppo_topk_tv', 0.2, None),
    ('qwen3_30b_a3b_base_lora', 'dppo_exact_tv', 0.15, None),
    ('qwen3_30b_a3b_base_lora', 'dppo_binary_kl', 0.05, None),
  ],
)
def test_a_named_method_has_the_thresholds_of_the_recipe(
  name, preset, delta, budget
):
  region = _config(name, preset).trust_region
  assert (region.delta_low, region.delta_high) == (delta, delta)
  if budget is not None:
    assert region.budget == budget
  method = presets.PRESETS[preset]
  assert region.rule == method['trust_region.rule']
  assert region.divergence == method['trust_region.divergence']


@pytest.mark.parametrize('name', thresholds.SETTINGS)
@pytest.mark.parametrize('preset', ['pg_is', 'grpo', 'sapo', 'mask_0.5'])
def test_methods_without_a_divergence_report_that_of_the_recipe(name, preset):
  own = _config(name).trust_region.divergence
  assert _config(name, preset).trust_region.divergence == own


@pytest.mark.parametrize(
  ('name', 'floor', 'cap'),
  [
    ('sanity_r1_distill_1_5b', 0.0, 3.0),
    ('qwen3_8b_base', 0.0, 5.0),
    ('qwen3_1_7b', 0.8, 1.28),
    ('cppo_qwen3_30b_a3b_base', 0.8, 1.28),
  ],
)
def test_cispo_truncates_as_each_paper_has_it(name, floor, cap):
  objective = _config(name, 'cispo').objective
  assert (objective.ratio_floor, objective.ratio_cap) == (floor, cap)


@pytest.mark.parametrize('name', ['qwen3_1_7b', 'cppo_qwen3_8b_base'])
def test_cppo_has_no_cap_and_filters_groups(name):
  c = _config(name)
  assert c.objective.ratio_cap == _INF
  assert c.data.dynamic_sampling == 'drop'
  assert c.advantages.estimator == 'group_mean'
  assert c.evaluation.source == 'aime_2024, aime_2025, aime_2026'
  assert c.evaluation.num_prompts >= 90  # All of them, 30 a year.


def test_overrides_are_the_differences_alone():
  found = thresholds.overrides(
    thresholds.SETTINGS['qwen3_8b_base'], 'grpo_clip_higher'
  )
  assert found == {
    'objective.ratio_cap': 5.0,
    'trust_region.clip_high': 0.27,
    'trust_region.divergence': 'binary_tv',
  }


def test_unknown_preset_names_the_nearest():
  with pytest.raises(ValueError, match="'cpo'; did you mean 'cppo'"):
    thresholds.apply(default.get_config(), 'qwen3_1_7b', 'cpo')


@pytest.mark.parametrize('module', [quickstart, tiny])
def test_cppo_records_no_more_than_the_vocabulary(module):
  """K of the presets is that of the config: at most V."""
  config = module.get_config('cppo')
  assert config.trust_region.divergence == 'topk_tv'
  assert config.sampling.top_k == module.get_config().sampling.top_k
