"""Each kind of sickness is found, and health is not."""

import dataclasses

import numpy as np
import pytest

from dppo_jax.planning import findings as findings_lib
from dppo_jax.planning import text_findings
from dppo_jax.rewards.references import Unverifiable
from tests.support import runs


@pytest.fixture(scope='module')
def experiment():
  return runs.experiment()


def _with(experiment, **changes):
  """`sampling__top_p=0.9` replaces a field of a field."""
  for path, value in changes.items():
    section, key = path.split('__')
    part = dataclasses.replace(getattr(experiment, section), **{key: value})
    experiment = dataclasses.replace(experiment, **{section: part})
  return experiment


def _levels(findings):
  return {finding.check: finding.level for finding in findings}


@pytest.mark.parametrize(
  ('verifier', 'extraction', 'source', 'level'),
  [
    ('math', 'whole', 'gsm8k', 'warning'),
    ('one_boxed + 2*numeric', 'whole', 'rows', 'warning'),
    ('math', 'boxed', 'gsm8k', 'ok'),
    ('math', 'boxed, whole', 'gsm8k', 'ok'),
    ('exact_match', 'whole', 'gsm8k', 'ok'),
    ('numeric', 'whole', 'task', 'ok'),
  ],
)
def test_a_reader_of_answers_is_not_shown_the_whole(
  experiment, verifier, extraction, source, level
):
  changed = _with(
    experiment,
    rewards__verifier=verifier,
    rewards__extraction=extraction,
    data__source=source,
  )
  finding = text_findings.check_extraction(changed)
  assert finding.level == level
  assert ('rewards.extraction=boxed' in finding.fix) == (level == 'warning')


@pytest.mark.parametrize(
  ('number', 'level'), [(0, 'ok'), (1, 'warning'), (10, 'error')]
)
def test_references_nobody_can_meet(number, level):
  shown = {'no': 'malformed'} if number else {}
  found = Unverifiable(100, shown, number)
  finding = text_findings.check_references('training', found, 0.05)
  assert (finding.check, finding.level) == ('training references', level)
  assert ("'no' (malformed)" in finding.cause) == bool(number)
  assert ('max_unverifiable=0.05' in finding.fix) == (level == 'error')


def test_held_out_prompts_are_held_out(experiment):
  assert text_findings.check_held_out(experiment, 0).level == 'ok'
  finding = text_findings.check_held_out(experiment, 3)
  assert finding.level == 'warning'
  assert finding.cause.startswith('3 are trained on')
  for change in (
    {'evaluation__drop_trained_on': True},
    {'evaluation__split': 'train'},
  ):
    meant = _with(experiment, **change)
    assert text_findings.check_held_out(meant, 3).level == 'ok'


def test_a_finding_names_cause_and_fix():
  finding = findings_lib.Finding(findings_lib.ERROR, 'what', 'why', 'how')
  assert str(finding) == 'ERROR   what: why\n        Fix: how'
  assert (
    str(findings_lib.Finding(findings_lib.OK, 'what', 'fine'))
    == 'ok      what: fine'
  )


@pytest.mark.parametrize(
  ('shown', 'spelled', 'level'),
  [
    ('<u>Two?<a>', '<u>Two?<a>', 'ok'),
    ('Two?', '<bos>Two?', 'ok'),
    ('Two?', 'two?', 'error'),
    ('Two?', 'Two', 'error'),
    ('Two?', 'Two??', 'error'),
  ],
)
def test_round_trip(shown, spelled, level):
  assert text_findings.check_round_trip(shown, spelled).level == level


def test_what_nothing_reads_is_a_warning():
  assert text_findings.check_published([]) == []
  (found,) = text_findings.check_published(
    ['config.json: nothing here reads a=1.']
  )
  assert (found.level, found.check) == ('warning', 'published files')
  assert 'nothing here reads a=1.' in str(found)


def test_a_broken_round_trip_says_where():
  found = text_findings.check_round_trip('abcdef', 'abXdef')
  assert "character 2 of the prompt comes back as 'Xdef'" in found.cause
  assert found.fix


@pytest.mark.parametrize(
  ('opened', 'closed', 'level'),
  [
    ('<u>Hi</u>\n<a>', '<u>Hi</u>\n', 'ok'),
    ('<u>Hi</u>', '<u>Hi</u>', 'error'),
    ('<a>', '<u>Hi</u>', 'error'),
  ],
)
def test_generation_prompt(opened, closed, level):
  assert text_findings.check_generation_prompt(opened, closed).level == level


@pytest.mark.parametrize(
  ('eos_ids', 'level', 'cause'),
  [
    ((1,), 'ok', 'ids [1] of 16'),
    ((1, 15), 'ok', '16'),
    ((), 'error', 'no id ends'),
    ((1, 16), 'error', 'ids [16] are not'),
    ((-1,), 'error', 'ids [-1] are not'),
  ],
)
def test_ends(eos_ids, level, cause):
  found = text_findings.check_ends(eos_ids, 16)
  assert found.level == level
  assert cause in found.cause


@pytest.mark.parametrize(
  ('behind', 'end', 'stops', 'level', 'words'),
  [
    ('<|end|>\n', 3, (), 'ok', "'<|end|>' ends a completion"),
    ('##\n', None, ('##',), 'ok', "'##' ends"),
    (' <|eot|>\n', 9, (), 'warning', "('<|eot|>',)"),
    ('##\nmore', None, (), 'warning', "('##',)"),
    ('', None, (), 'warning', 'in sampling.stop_strings'),
  ],
)
def test_the_end_of_a_turn(behind, end, stops, level, words):
  found = text_findings.check_turn_end(behind, end, (3, 4), stops)
  assert found.level == level
  assert words in (found.cause if level == 'ok' else found.fix)


def test_special_tokens_in_problems():
  assert text_findings.check_special_text(0, 7).level == 'ok'
  found = text_findings.check_special_text(2, 7)
  assert found.level == 'warning'
  assert found.cause.startswith('2 of 7 problems spell one')


def test_a_healthy_law(experiment):
  found = findings_lib.check_law(experiment)
  assert _levels(found) == {'temperature': 'ok', 'top-p': 'ok'}


@pytest.mark.parametrize(
  ('changes', 'sick'),
  [
    (dict(loss__temperature=0.7), 'temperature'),
    (dict(sampling__temperature=0.7), 'temperature'),
    (dict(sampling__top_p=0.95), 'top-p'),
    (dict(sampling__greedy=True), 'top-p'),
  ],
)
def test_a_law_that_is_not_the_same_on_both_sides(experiment, changes, sick):
  levels = _levels(findings_lib.check_law(_with(experiment, **changes)))
  assert levels.pop(sick) == 'error'
  assert set(levels.values()) == {'ok'}


@pytest.mark.parametrize(
  ('changes', 'mass', 'level'),
  [
    ({}, 0.95, 'ok'),
    ({}, 0.89, 'warning'),
    ({}, None, 'error'),
    (dict(sampling__top_k=0), None, 'error'),
    (dict(sampling__top_k=0, loss__divergence='binary_tv'), None, 'ok'),
    (dict(loss__divergence='binary_tv'), 0.5, 'ok'),
    (dict(loss__divergence='binary_tv'), None, 'error'),
  ],
)
def test_recorded(experiment, changes, mass, level):
  assert findings_lib.check_recorded(
    _with(experiment, **changes), mass
  ).level == (level)


@pytest.mark.parametrize(
  ('changes', 'off', 'level'),
  [
    ({}, 1e-5, 'ok'),
    ({}, 1e-2, 'error'),
    ({}, np.nan, 'error'),
    (dict(model__dtype='bfloat16'), 1e-2, 'ok'),
    (dict(model__dtype='bfloat16'), 0.5, 'warning'),
    (dict(sampling__precision='int4'), 1e-2, 'ok'),
    (dict(sampling__precision='int4'), np.nan, 'error'),
  ],
)
def test_agreement(experiment, changes, off, level):
  sampled = np.array([-1.0, -2.0, -0.5])
  trained = sampled + off * np.array([1, -1, 1])
  found = findings_lib.check_agreement(
    _with(experiment, **changes), sampled, trained
  )
  assert found.level == level


def test_nothing_sampled_agrees_with_nothing(experiment):
  nothing = np.zeros(0)
  found = findings_lib.check_agreement(experiment, nothing, nothing)
  assert found.level == 'error'


@pytest.mark.parametrize(
  ('share', 'warm_start', 'level'),
  [
    (0.5, False, 'ok'),
    (0.75, False, 'warning'),
    (1.0, False, 'error'),
    (1.0, True, 'warning'),
  ],
)
def test_lengths(share, warm_start, level):
  truncated = np.arange(8) < 8 * share
  found = findings_lib.check_lengths(truncated, 64, warm_start=warm_start)
  assert found.level == level
  assert f'{share:.0%} of 8 completions reach 64 tokens' in found.cause


@pytest.mark.parametrize(
  ('rewards', 'warm_start', 'level', 'fix'),
  [
    ([[0, 1], [0, 0], [1, 1], [1, 0]], False, 'ok', ''),
    ([[0, 0]] * 9 + [[0, 1]], False, 'warning', 'too hard'),
    ([[0, 0]] * 3, False, 'error', 'too hard'),
    ([[0, 0]] * 3, True, 'warning', 'too hard'),
    ([[1, 1]] * 3, False, 'error', 'too easy'),
  ],
)
def test_rewards(rewards, warm_start, level, fix):
  rewards = np.array(rewards, np.float32)
  found = findings_lib.check_rewards(rewards, warm_start=warm_start)
  assert found.level == level
  assert fix in found.fix


@pytest.mark.parametrize(
  ('changes', 'level'),
  [
    ({}, 'ok'),
    (dict(loss__shared_rows=2), 'warning'),
    (dict(loss__shared_rows=2, data__max_prompt_length=1), 'ok'),
  ],
)
def test_microbatch(experiment, changes, level):
  found = findings_lib.check_microbatch(_with(experiment, **changes))
  assert found.level == level
  if level == 'warning':
    assert 'a prompt is run 2 times' in found.cause


@pytest.mark.parametrize(
  ('estimate', 'capacity', 'level'),
  [
    (80e9, 141e9, 'ok'),
    (130e9, 141e9, 'warning'),
    (150e9, 141e9, 'error'),
    (150e9, None, 'ok'),
  ],
)
def test_memory(estimate, capacity, level):
  assert findings_lib.check_memory(estimate, capacity).level == level
