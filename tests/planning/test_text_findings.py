"""What is told of prompts, templates and references."""

import pytest

from dppo_jax.planning import text_findings
from dppo_jax.rewards.references import Unverifiable
from tests.support import runs


@pytest.fixture(scope='module')
def experiment():
  return runs.experiment()


@pytest.mark.parametrize(
  ('verifier', 'extraction', 'source', 'level'),
  [
    ('math', 'whole', 'gsm8k', 'warning'),
    ('one_boxed + 2*numeric', 'whole', 'rows', 'warning'),
    ('math', 'boxed', 'gsm8k', 'ok'),
    ('math', 'boxed, whole', 'gsm8k', 'ok'),
    ('exact_match', 'whole', 'gsm8k', 'ok'),
    ('numeric', 'whole', 'task', 'ok'),
    ('reasoning_gym', 'whole', 'reasoning_gym', 'ok'),
  ],
)
def test_a_reader_of_answers_is_not_shown_the_whole(
  experiment, verifier, extraction, source, level
):
  changed = runs.changed(
    experiment,
    rewards__verifier=verifier,
    rewards__extraction=extraction,
    data__source=source,
  )
  finding = text_findings.check_extraction(changed)
  assert finding.level == level
  assert ('rewards.extraction=boxed' in finding.fix) == (level == 'warning')


def test_a_chat_says_more_than_the_answer_of_a_task(experiment):
  chat = runs.changed(
    experiment,
    rewards__verifier='reasoning_gym',
    rewards__extraction='whole',
    data__source='reasoning_gym',
    data__chat_template=True,
  )
  finding = text_findings.check_extraction(chat)
  assert finding.level == 'warning'
  assert 'answer_tag' in finding.fix
  tagged = runs.changed(chat, rewards__extraction='answer_tag')
  assert text_findings.check_extraction(tagged).level == 'ok'


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
  assert finding.cause.startswith('3 are in the training set')
  for change in (
    {'evaluation__drop_trained_on': True},
    {'evaluation__split': 'train'},
  ):
    meant = runs.changed(experiment, **change)
    assert text_findings.check_held_out(meant, 3).level == 'ok'


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
  assert "character 2 of the prompt is decoded as 'Xdef'" in found.cause
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
    ((1, 16), 'error', 'ids [16] are outside'),
    ((-1,), 'error', 'ids [-1] are outside'),
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
  assert found.cause.startswith('2 of 7 problems contain one')
