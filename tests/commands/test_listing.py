import pytest

from dppo_jax.commands import listing
from dppo_jax.configs.presets import PRESETS
from dppo_jax.experiments.figures import __main__ as figures
from dppo_jax.rewards.verifiers import VERIFIERS


def test_every_kind_lists_its_names():
  assert list(listing.KINDS['presets']()) == list(PRESETS)
  assert list(listing.KINDS['figures']()) == figures.known()
  assert list(listing.KINDS['verifiers']()) == list(VERIFIERS)
  configs = listing.KINDS['configs']()
  assert {'tiny', 'default', 'qwen3_8b_base'} <= set(configs)
  assert not {'presets', 'published', 'thresholds'} & set(configs)


@pytest.mark.parametrize('kind', listing.KINDS)
def test_every_name_has_a_line(kind):
  assert all(listing.KINDS[kind]().values())


def test_a_preset_is_told_by_what_it_sets():
  lines = listing.preset_lines()
  assert lines['pg_is'] == 'no trust region'
  assert lines['dppo_binary_kl'] == (
    'rule=divergence divergence=binary_kl delta_low=0.05 delta_high=0.05'
  )


def test_one_kind_or_all():
  text = listing.describe('recipes')
  assert text == listing.describe('configs')
  assert '  tiny ' in text
  assert 'grpo_clip_higher' not in text
  whole = listing.describe('')
  assert text in whole
  assert '  grpo_clip_higher ' in whole


def test_an_unknown_kind_is_refused():
  with pytest.raises(ValueError, match="did you mean 'presets'"):
    listing.describe('Preset')
