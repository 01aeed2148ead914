"""Fields of a row, and what is said where they cannot be read."""

import dataclasses

import pytest

from dppo_jax.data import record_files, reference_answers, row_fields
from dppo_jax.data.catalog import SOURCES


def _row(**values):
  return record_files.RawRecord({'q': 'why?', **values}, 'a.jsonl, line 7')


def _answer(row, *paths, read=reference_answers.as_is):
  source = dataclasses.replace(
    SOURCES['rows'], prompt=('q',), answer=paths, read_answer=read
  )
  prompt, answer = row_fields.problem(row, source)
  assert prompt == 'why?'
  return answer


def _prompt(value):
  source = dataclasses.replace(SOURCES['rows'], prompt=('p',), answer=('q',))
  return row_fields.problem(_row(p=value), source)[0]


def test_the_first_field_that_is_there_counts():
  row = _row(a=None, b=3.0, c='4')
  assert _answer(row, 'a', 'b', 'c') == '3'
  assert _answer(row, 'c', 'b') == '4'
  assert _answer(row, 'a') is None


def test_a_list_with_nothing_in_it_is_no_answer():
  assert _answer(_row(a=['3', '4']), 'a') == '3, 4'
  assert _answer(_row(a=['3', 'proof']), 'a') is None


def test_an_answer_is_read_of_its_solution():
  row = _row(a='so 1 #### 2', b='so 1 #### proof', c='so 1')
  read = reference_answers.after_hashes
  assert _answer(row, 'a', read=read) == '2'
  assert _answer(row, 'b', read=read) is None
  with pytest.raises(
    ValueError, match=r'^data\.files: a\.jsonl, line 7: no ans'
  ):
    _answer(row, 'c', read=read)
  with pytest.raises(ValueError, match="line 7 has no field 'd'; its fields"):
    _answer(row, 'd', read=read)


def test_a_prompt_is_a_text_or_the_only_turn():
  chat = [{'role': 'user', 'content': 'why?'}]
  assert _prompt(chat) == 'why?'
  assert _prompt('why?') == 'why?'
  with pytest.raises(ValueError, match='line 7 has an empty prompt'):
    _prompt(' ')
