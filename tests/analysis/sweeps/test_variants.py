import math

import pytest

from dppo_jax.analysis.sweeps import variants
from dppo_jax.configs import presets, tiny

_CONFIG = tiny.get_config().to_dict()


def _expand(*grids, zips=()):
  return variants.expand(_CONFIG, grids, zips, presets.PRESETS)


def test_grids_are_every_value_with_every_other():
  found = _expand('trust_region.divergence=binary_tv,topk_tv', 'num_steps=2,3')
  assert [variant.name for variant in found] == [
    'divergence=binary_tv, num_steps=2',
    'divergence=binary_tv, num_steps=3',
    'divergence=topk_tv, num_steps=2',
    'divergence=topk_tv, num_steps=3',
  ]
  assert found[1].overrides == {
    'trust_region.divergence': 'binary_tv',
    'num_steps': 3,
  }


def test_zips_vary_together_and_grids_with_them():
  found = _expand(
    'num_steps=2,3',
    zips=[
      'trust_region.divergence=binary_tv,binary_kl',
      'learner.share_prompt_prefix=true,False',
    ],
  )
  assert [list(variant.overrides.values()) for variant in found] == [
    ['binary_tv', True, 2],
    ['binary_tv', True, 3],
    ['binary_kl', False, 2],
    ['binary_kl', False, 3],
  ]


def test_a_key_with_two_ends_sets_both():
  (first, second) = _expand('trust_region.delta=.05,inf')
  assert first.overrides == {
    'trust_region.delta_low': 0.05,
    'trust_region.delta_high': 0.05,
  }
  assert (first.name, second.name) == ('delta=0.05', 'delta=inf')
  assert second.overrides['trust_region.delta_high'] == math.inf
  (alone,) = _expand('trust_region.delta_low=0.05')
  assert alone.overrides == {'trust_region.delta_low': 0.05}


def test_other_keys_override_a_preset():
  first, _ = _expand('trust_region.delta=0.3', 'preset=dppo_binary_kl,grpo')
  assert first.name == 'delta=0.3, preset=dppo_binary_kl'
  assert first.overrides['trust_region.divergence'] == 'binary_kl'
  assert first.overrides['trust_region.delta_low'] == 0.3


def test_without_flags_only_seeds_vary():
  assert _expand() == [variants.Variant('base', {}, {})]


def test_equal_last_parts_are_written_out():
  (found,) = _expand('optimizer.learning_rate=1', 'sft.learning_rate=2')
  assert found.name == 'optimizer.learning_rate=1, sft.learning_rate=2'


@pytest.mark.parametrize(
  ('grid', 'message'),
  [
    ('trust_region.detla=1', r"no such key; did you mean 'delta'\? Known: "),
    ('trust_region.delta_lwo=1', "did you mean 'delta_low'"),
    ('trustregion.delta=1', "no section 'trustregion'; did you mean 'trust_r"),
    ('num_stesp=1', "did you mean 'num_steps'"),
    ('model=1', 'model: no such key'),
    ('num_steps.x=1', "no section 'num_steps'"),
    ('num_steps=1.5', "num_steps='1.5'; a whole number"),
    ('trust_region.delta=x', "trust_region.delta='x'; a number"),
    ('learner.share_prompt_prefix=1', "='1'; true or false"),
    ('num_steps=', "got 'num_steps='; a key and its values"),
    ('num_steps', "got 'num_steps'; a key and its values"),
    ('num_steps=1,1', 'num_steps=1 occurs twice'),
    ('trust_region.delta=.1,0.1', 'delta=0.1 occurs twice'),
    ('seed=1,2', '--seeds=N'),
    ('preset=minirl_tsi', "unknown 'minirl_tsi'; did you mean 'minirl_tis'"),
    ('data.mixture=a,b', 'a tuple cannot be swept'),
  ],
)
def test_invalid_grids_are_named(grid, message):
  with pytest.raises(ValueError, match=rf'^--grid: .*{message}'):
    _expand(grid)


def test_flags_must_not_contradict_each_other():
  with pytest.raises(ValueError, match='occurs in two flags'):
    _expand('num_steps=1', 'num_steps=2')
  with pytest.raises(ValueError, match=r'both set trust_region\.delta_low'):
    _expand('trust_region.delta=.1', 'trust_region.delta_low=.2')
  with pytest.raises(ValueError, match='as many: num_steps 2, seeded 1'):
    variants.expand(
      {**_CONFIG, 'seeded': 0}, [], ['num_steps=1,2', 'seeded=1'], {}
    )


def test_more_than_can_be_meant_is_refused():
  many = ','.join(map(str, range(40)))
  with pytest.raises(ValueError, match='1,600 variants; at most 1,000'):
    _expand(f'num_steps={many}', f'data.num_prompts={many}')
