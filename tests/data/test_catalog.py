"""The table itself, and what it reads of rows as they are published."""

import dataclasses
import pathlib

import pytest

from dppo_jax.data import catalog, fields, sources

# Their repositories and licences are in its README.
_PUBLISHED = pathlib.Path(__file__).parents[1] / 'testdata' / 'published'
_FIELDS = dict.fromkeys(sources.FIELDS, '')


_OLYMPIAD = ['-1,0,1', '5', '4.2', '$-1$,$2$,$-2$']


def _load(name, file):
  path = _PUBLISHED / file
  return sources.load_source(
    name, 'test', str(path), '/nowhere', _FIELDS, 'data.files'
  )


@pytest.mark.parametrize('name', sorted(catalog.SOURCES))
def test_a_row_is_complete(name):
  row = catalog.SOURCES[name]
  assert row.published
  assert row.prompt
  assert row.answer
  assert fields.parse_extra(row.extra) == (('*', '*'),)
  assert set(row.splits) <= {'train', 'validation', 'test'}


def test_rows_do_not_change():
  with pytest.raises(dataclasses.FrozenInstanceError):
    catalog.SOURCES['math'].published = 'elsewhere'


@pytest.mark.parametrize(
  ('name', 'file', 'answers'),
  [
    ('svamp', 'svamp.json', ['2', '14', '51']),
    ('asdiv', 'asdiv.jsonl', ['8', '12, 8', '-1/3', '9:55 a.m.', '3:4', 'Bo']),
    ('aqua', 'aqua.jsonl', ['D', 'A', 'A']),
    ('aqua', 'aqua-agieval.jsonl', ['D', 'A']),
    ('sat', 'sat-agieval.jsonl', ['B', 'A']),
    ('sat', 'sat-text.jsonl', ['B', 'D']),
    ('mmlu_stem', 'mmlu_stem.jsonl', ['D', 'C', 'C']),
    ('mmlu_stem', 'mmlu_stem-letters.jsonl', ['D', 'C']),
    ('gaokao', 'gaokao-mathqa.jsonl', ['C', 'AC', 'CD']),
    ('gaokao', 'gaokao-mathqa-letters.jsonl', ['AC', 'C']),
    (
      'gaokao',
      'gaokao-mathcloze.jsonl',
      ['0;3', '$5$;$10$', r'$\frac{3\sqrt{10}}{10}$;$\frac{4}{5}$'],
    ),
    ('gaokao', 'gaokao2023en.jsonl', ['2', '9', '$1$ or $2$']),
    ('olympiadbench', 'olympiadbench.jsonl', _OLYMPIAD),
  ],
)
def test_published_rows_are_read(name, file, answers):
  loaded = _load(name, file)
  assert [row['answer'] for row in loaded.examples] == answers
  assert loaded.notes == ()


def test_a_published_passage_stands_above_its_question():
  without, with_passage = _load('sat', 'sat-agieval.jsonl').examples
  assert without['prompt'].startswith('At a restaurant, $n$ cups of tea')
  passage, question = with_passage['prompt'].split('\n\n')
  assert passage.startswith(r'$$.\begin{aligned}.& \text { Mosteller')
  assert question.splitlines()[:2] == [
    "Based on Current's formula, what is $w$ in terms of $A$ ?",
    '(A) $w=30 A-4$',
  ]


def test_published_options_are_listed_under_either_name():
  first = _load('mmlu_stem', 'mmlu_stem.jsonl').examples
  second = _load('mmlu_stem', 'mmlu_stem-letters.jsonl').examples
  for one, other in zip(first, second, strict=False):
    assert one['prompt'] == other['prompt']
    assert one['source'] == other['source']
  assert first[0]['prompt'] == '(1+i)^10 =\n(A) 1\n(B) i\n(C) 32\n(D) 32i'
  assert first[2]['prompt'].endswith('(D) None')


def test_text_of_published_options_is_kept_as_it_is():
  texts = [row['prompt'] for row in _load('sat', 'sat-text.jsonl').examples]
  assert texts[0] == 'What is $2+3$?\nA) $4$ B) $5$ C) $6$ D) $7$'


def test_a_published_row_without_an_answer_is_left_out():
  assert _load('gaokao', 'gaokao2023en.jsonl').num_unanswered == 1
