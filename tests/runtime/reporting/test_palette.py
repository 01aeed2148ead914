import itertools

import numpy as np

from dppo_jax.configs import presets
from dppo_jax.experiments.figures import settings
from dppo_jax.runtime.reporting import palette

# Thresholds of one rule, the ratio clip on the rollout policy.
_SAME = {'PPO', 'GRPO', 'GRPO-ClipHigher'}


def test_a_rule_has_one_color_and_a_color_one_rule():
  for (a, one), (b, other) in itertools.combinations(palette.RULES.items(), 2):
    assert (one.color == other.color) == ({a, b} <= _SAME), (a, b)


def test_what_is_no_rule_has_no_color_of_a_rule():
  rules = {style.color for style in palette.RULES.values()}
  own = {style.color for style in palette.SETTINGS.values()}
  assert not rules & own
  others = {*palette.OTHERS, palette.NEGATIVE, palette.POSITIVE, palette.INSIDE}
  assert not (rules | own) & others
  found = palette.styles(f'run {i}' for i in range(len(palette.OTHERS) + 4))
  assert len(set(found.values())) == len(found)
  assert {style.color for style in found.values()} <= set(palette.OTHERS)


def test_every_method_of_the_figures_has_its_style_whatever_is_beside_it():
  labels = list(settings.METHODS)
  together = palette.styles(['other', 'DPPO-Binary-TV 0.1', *reversed(labels)])
  for label in labels:
    assert together[label] == palette.styles([label])[label]
    assert together[label] == palette.RULES[label]


def test_a_preset_and_a_method_have_one_color():
  for preset in ('dppo_binary_tv', 'dppo_topk_kl', 'pg_is', 'cppo'):
    assert preset in presets.PRESETS
    rule = palette.rule_of(f'{preset},seed=3')
    assert rule is not None
    assert palette.styles([preset])[preset] == palette.RULES[rule]
  assert palette.rule_of('dppo_binary_tvx') is None


def test_settings_of_one_rule_differ_by_line():
  found = palette.styles(f'DPPO-Binary-TV {d}' for d in (0.1, 0.2, 0.3))
  assert len({style.color for style in found.values()}) == 1
  assert len({style.line for style in found.values()}) == 3


def test_every_curve_is_seen_on_white():
  styles = (*palette.RULES.values(), *palette.SETTINGS.values())
  for color in (*(style.color for style in styles), *palette.OTHERS):
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    assert rgb @ [0.2126, 0.7152, 0.0722] < 0.78, color
