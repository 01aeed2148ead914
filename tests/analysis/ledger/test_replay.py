import dataclasses
import math

import numpy as np
import pytest

from dppo_jax.analysis.ledger import replay
from dppo_jax.configs import default, presets
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.trust_regions import TRUST_REGIONS
from dppo_jax.runtime.ledger import record as record_lib
from tests.support import factories
from tests.support import ledger_records as records

_SETS = ('union', 'replace_kth')
_TIGHT = dict(delta_low=0.05, delta_high=0.05, budget=0.01)
# Every rule once, and every axis: what the training has decided by.
_RULES = {
  'none': dict(rule='none'),
  'topk_tv': dict(divergence='topk_tv', **_TIGHT),
  'topk_kl': dict(divergence='topk_kl', **_TIGHT),
  'replace_kth': dict(divergence='topk_kl', top_k_set='replace_kth', **_TIGHT),
  'recomputed': dict(anchor='recomputed', **_TIGHT),
  'binary_kl recomputed': dict(
    divergence='binary_kl', anchor='recomputed', **_TIGHT
  ),
  'sided': dict(advantage_sign='negative', alpha_low=0.1, **_TIGHT),
  'sign blind': dict(direction='any', **_TIGHT),
  'ratio_clip': dict(rule='ratio_clip'),
  'ratio_clip recomputed': dict(rule='ratio_clip', anchor='recomputed'),
  'dual_clip': dict(rule='dual_clip', dual_clip=1.5),
  'bad_updates': dict(rule='mask_bad_updates', delta_low=0.1),
  'cppo': dict(rule='cppo', divergence='binary_tv', **_TIGHT),
  'cppo shuffled': dict(rule='cppo', weight_order='shuffled', **_TIGHT),
  'cppo_dynamic': dict(rule='cppo_dynamic', **_TIGHT),
  'cppo_soft': dict(rule='cppo_soft', **_TIGHT),
  'trm_max': dict(rule='trm_max', delta_low=0.2, delta_high=0.2),
  'trm_mean': dict(rule='trm_mean', delta_low=0.1, delta_high=0.1),
  'trm_max_mean': dict(
    rule='trm_max_mean', delta_low=0.2, delta_high=0.2, budget=0.1
  ),
  'gspo': dict(rule='gspo', clip_low=0.05, clip_high=0.05),
  'sapo': dict(rule='sapo'),
  'drpo': dict(rule='drpo'),
  'spo': dict(rule='spo', soft_clip=0.3),
  'vespo': dict(rule='vespo'),
  'estr': dict(rule='estr', tau_entropy=1e-3),
  'predictive': dict(divergence='topk_kl', direction='predictive', **_TIGHT),
}


def test_every_rule_is_replayed_here():
  assert {o.get('rule', 'divergence') for o in _RULES.values()} == set(
    TRUST_REGIONS
  )


@pytest.mark.parametrize('name', _RULES)
def test_the_recorded_rule_decides_as_it_did(name):
  record = records.trained(**_RULES[name])
  decided = replay.decide(record, records.rule(**_RULES[name]))
  # A weight of any size is rounded as the compiler orders its arithmetic.
  ulps = 1e-6 if TRUST_REGIONS[decided.rule.loss.rule].signed else 0.0
  np.testing.assert_allclose(decided.keep, record.keep, rtol=ulps)
  np.testing.assert_array_equal(decided.divergence, record.divergence)
  if name != 'none':
    assert 0 < np.abs(decided.dropped()).mean() <= 5


@pytest.mark.parametrize('name', _RULES)
def test_another_rule_decides_as_if_trained_with_it(name):
  """pi does not depend on the rule here: one update, the same parameters."""
  recorded_by = dict(rule='none', divergence='binary_tv')
  if 'recomputed' in name:
    recorded_by['anchor'] = 'recomputed'
  record = records.trained(**recorded_by)
  expected = records.trained(**_RULES[name])
  decided = replay.decide(record, records.rule(**_RULES[name]))
  row = TRUST_REGIONS[decided.rule.loss.rule]
  soft = row.signed or row.fn.__name__.startswith('weigh')
  np.testing.assert_allclose(
    decided.divergence, expected.divergence, atol=1e-6, rtol=1e-5
  )
  np.testing.assert_allclose(
    decided.keep, expected.keep, atol=1e-5 if soft else 0, rtol=0
  )


def test_either_top_k_set_is_replayed_on_the_other():
  sets = [dict(divergence='topk_kl', top_k_set=s, **_TIGHT) for s in _SETS]
  made = [records.trained(**options) for options in sets]
  assert (made[0].divergence != made[1].divergence).any()
  for record, options, expected in zip(
    made, sets[::-1], made[::-1], strict=True
  ):
    decided = replay.decide(record, records.rule(**options))
    np.testing.assert_allclose(
      decided.divergence, expected.divergence, atol=1e-6, rtol=1e-5
    )


def test_exact_divergences_need_the_vocabulary():
  whole = dict(divergence='exact_kl', **_TIGHT)
  record = records.trained(top_k=factories.VOCAB_SIZE, rule='none')
  expected = records.trained(top_k=factories.VOCAB_SIZE, **whole)
  decided = replay.decide(record, records.rule(**whole))
  np.testing.assert_allclose(decided.divergence, expected.divergence, rtol=1e-5)
  np.testing.assert_array_equal(decided.keep, expected.keep)
  with pytest.raises(ValueError, match=r'reads all 24 log-probs and 5 were'):
    replay.decide(records.trained(), records.rule(**whole))


def test_exact_divergences_need_no_more_than_the_support():
  """All that a filter left is among the recorded tokens, or not."""
  record, rule = records.trained(), records.rule(divergence='exact_kl')
  sizes = np.arange(len(record.row), dtype=np.int32) % 5 + 1
  replay.decide(dataclasses.replace(record, support=sizes), rule)
  with pytest.raises(ValueError, match=r'reads all 6 log-probs and 5 were'):
    replay.decide(dataclasses.replace(record, support=sizes + 1), rule)


@pytest.mark.parametrize('divergence', ['exact_tv', 'certified_tv'])
def test_what_was_measured_exactly_need_not_be_measured_again(divergence):
  """The recorded D decides as it did, whatever K was."""
  bound = dict(delta_low=0.4, delta_high=0.5)
  own = dict(divergence=divergence, **bound)
  record, rule = records.trained(**own), records.rule(**own)
  assert 0 < (record.keep == 0).mean() < 1
  np.testing.assert_array_equal(replay.decide(record, rule).keep, record.keep)
  for other in (
    records.rule(divergence='exact_kl', **bound),
    records.rule(**own, direction='predictive'),
  ):
    if divergence == 'exact_tv' or other.loss.divergence == 'exact_kl':
      with pytest.raises(ValueError, match=r'reads all 24 log-probs'):
        replay.decide(record, other)
  tighter = records.rule(**{**own, 'delta_low': 0.3})
  if divergence == 'exact_tv':
    replay.decide(record, tighter)
    assert replay.match(record, rule, 3) is not None
  else:  # A lower bound says nothing at another threshold.
    with pytest.raises(ValueError, match=r'reads all 24 log-probs'):
      replay.decide(record, tighter)
    assert replay.match(record, rule, 3) is None


def test_missing_columns_are_named():
  bare = dataclasses.replace(
    records.trained(),
    top_ids=None,
    rollout_top_log_probs=None,
    top_log_probs=None,
  )
  # The recorded divergence itself needs no pairs, another of Top-K does.
  with pytest.raises(ValueError, match=r"'topk_kl' reads top-K.*top_k=20"):
    replay.decide(bare, records.rule(divergence='topk_kl'))
  with pytest.raises(ValueError, match=r"--rule: .*'mine'.*anchor=rollout"):
    replay.decide(records.trained(), records.rule('mine', anchor='recomputed'))


def test_decisions_match_those_worked_by_hand():
  record, rule = records.hand_made(), records.hand_made_rule()
  decided = replay.decide(record, rule)
  assert decided.keep.tolist() == [0, 1, 1, 1, 1, 0]
  # The ratios are .57 .83 .8 2 | 1.08 61, and the fourth comes back.
  clip = dict(rule='ratio_clip', clip_high=0.05)
  for clip_low, keep in (
    (0.25, [0, 1, 1, 1, 0, 0]),
    (0.15, [0, 0, 0, 1, 0, 0]),
  ):
    rule = records.hand_made_rule(**clip, clip_low=clip_low)
    assert replay.decide(record, rule).keep.tolist() == keep
  kl = records.hand_made_rule(divergence='binary_kl', delta_high=0.7)
  decided = replay.decide(record, kl)
  expected = 0.92 * math.log(0.92 / 0.52) + 0.08 * math.log(0.08 / 0.48)
  assert decided.divergence[0] == pytest.approx(expected, rel=1e-5)
  assert decided.keep.tolist() == [0, 1, 1, 1, 1, 1]


def test_rows_of_several_steps_are_replayed_separately():
  options = _RULES['cppo']
  one = records.trained(step=1, **options)
  other = records.trained(step=2, seed=3, **options)
  together = replay.decide(
    record_lib.merge([one, other]), records.rule(**options)
  )
  np.testing.assert_array_equal(
    together.keep, np.concatenate([one.keep, other.keep])
  )


# By hand: the divergences of the tokens that move away are .4 .1 .01 | .07 .3.
@pytest.mark.parametrize(
  ('wanted', 'between'),
  [(0, (0.4, 0.8)), (1, (0.3, 0.4)), (2, (0.1, 0.3)), (4, (0.01, 0.07))],
)
def test_delta_of_equal_share_by_hand(wanted, between):
  found = replay.match(records.hand_made(), records.hand_made_rule(), wanted)
  assert (found.dropped, found.wanted) == (wanted, wanted)
  low, high = between
  delta = found.thresholds['delta_low']
  assert delta == found.thresholds['delta_high']
  # The middle, rounded to as few digits as mask the same.
  assert delta == pytest.approx((low + high) / 2, rel=0.2)
  assert low <= delta < high
  assert len(repr(delta)) <= 5
  decided = replay.decide(records.hand_made(), found.rule)
  assert decided.masked().sum() == wanted


def test_bounds_of_either_sign_keep_their_proportion():
  rule = records.hand_made_rule(delta_low=0.2, delta_high=0.1)
  found = replay.match(records.hand_made(), rule, 1)
  # D / bound is 2 .5 .05 | .7 3: one is masked between 2 and 3.
  assert found.dropped == 1
  assert 0.4 < found.thresholds['delta_low'] < 0.6
  assert found.thresholds['delta_low'] == pytest.approx(
    2 * found.thresholds['delta_high']
  )


def test_a_clip_below_is_never_wider_than_a_ratio_can_fall():
  rule = records.hand_made_rule(rule='ratio_clip')
  found = replay.match(records.hand_made(), rule, 0)
  assert found.dropped == 0
  assert found.thresholds['clip_low'] == 1
  assert found.thresholds['clip_high'] > 60  # The largest ratio is 61.


def test_ties_give_the_nearest():
  record = records.hand_made()
  same = record.divergence.copy()
  same[[0, 1, 5]] = 0.3
  record = dataclasses.replace(record, divergence=same)
  found = replay.match(record, records.hand_made_rule(), 1)
  assert (found.dropped, found.wanted) == (0, 1)
  found = replay.match(record, records.hand_made_rule(), 2)
  assert (found.dropped, found.wanted) == (3, 2)


def test_no_more_tokens_are_masked_than_the_rule_applies_to():
  found = replay.match(records.hand_made(), records.hand_made_rule(), 6)
  assert (found.dropped, found.wanted) == (5, 6)


@pytest.mark.parametrize(
  'options',
  [
    dict(rule='ratio_clip'),
    dict(rule='cppo', divergence='binary_tv'),
    dict(rule='trm_mean', divergence='binary_kl'),
    dict(rule='mask_bad_updates'),
    dict(divergence='topk_kl'),
  ],
  ids=str,
)
def test_other_rules_are_matched_too(options):
  record = records.trained(rule='none')
  rule = records.rule('asked', **options)
  wanted = len(record.row) // 10
  found = replay.match(record, rule, wanted)
  assert found.matched is rule
  row = math.ceil(record.lengths().max() / 2)  # A rule may drop rows whole.
  assert abs(found.dropped - wanted) <= row
  dropped = replay.decide(record, found.rule).dropped().sum()
  assert dropped == pytest.approx(found.dropped, abs=1e-4)
  assert found.rule.name == 'asked, matched'


def test_rules_without_a_threshold_are_not_matched():
  for options in (dict(rule='none'), dict(rule='sapo'), dict(delta_low=0.0)):
    rule = records.rule(**options)
    assert replay.match(records.trained(), rule, 3) is None


def test_relatives_are_rules_that_the_record_can_replay():
  names = [
    r.name
    for r in replay.relatives(records.trained(), records.rule(rule='cppo'))
  ]
  # Its K is not the vocabulary.
  kinds = [name for name, r in DIVERGENCES.items() if r.records != 'hidden']
  assert {'binary_tv', 'binary_kl', 'topk_tv', 'topk_kl'} <= set(kinds)
  assert names == [f'cppo on {kind}' for kind in kinds]
  names = [
    r.name
    for r in replay.relatives(
      records.hand_made(), records.rule(rule='ratio_clip')
    )
  ]
  bare = [name for name, r in DIVERGENCES.items() if r.records == 'nothing']
  assert names == [f'divergence on {kind}' for kind in bare]


def _resolve(text, **overrides):
  config = default.get_config()
  config.update_from_flattened_dict(overrides)
  return replay.resolve(
    default.get_config(), config.to_dict(), presets.PRESETS, text
  )


def test_rules_start_from_the_config_of_the_run():
  own = _resolve('', **{'trust_region.delta_low': 0.31})
  assert own.name == 'recorded'
  assert (own.loss.divergence, own.loss.bounds.delta_low) == ('topk_tv', 0.31)
  changed = _resolve(
    'divergence=binary_kl', **{'trust_region.advantage_sign': 'negative'}
  )
  assert changed.loss.divergence == 'binary_kl'
  assert changed.loss.bounds.advantage_sign == 'negative'


def test_presets_and_overrides_resolve():
  rule = _resolve('cppo,w_min=1, trust_region.budget=inf,delta=0.3')
  assert rule.name == 'cppo,w_min=1, trust_region.budget=inf,delta=0.3'
  assert (rule.loss.rule, rule.loss.divergence) == ('cppo', 'topk_tv')
  bounds = rule.loss.bounds
  assert (bounds.w_min, bounds.budget) == (1.0, math.inf)
  assert bounds.delta_low == bounds.delta_high == 0.3


def test_a_run_on_many_devices_resolves_on_one():
  own = _resolve('', **{'mesh.data': 4, 'mesh.fsdp': 2, 'mesh.tensor': 4})
  assert own.loss.rule == 'divergence'


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('cpo', r"unknown 'cpo'; did you mean 'cppo'"),
    ('delta_lo=1', r"unknown key 'delta_lo'; did you mean 'delta_low'"),
    ('delta=much', r"delta_low='much'; a number"),
    ('delta=0.1,cppo', r"preset 'cppo' after.*first"),
    ('divergence=binray_tv', r"did you mean 'binary_tv'"),
    ('dppo_topk_tv,delta=3', r'trust_region\.delta_low: got 3'),
    ('cppo,w_min=2', r'trust_region\.w_min: got 2'),
  ],
)
def test_unknown_rules_are_refused(text, message):
  with pytest.raises(ValueError, match=f'(?s)^--rule: .*{message}') as refusal:
    _resolve(text, **{'sampling.top_k': 5})
  assert '--rule' in str(refusal.value)
