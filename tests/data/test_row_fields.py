"""Fields of a row, and what is said where they cannot be read."""

import pytest

from dppo_jax.data import answers, row_fields, rows


def _row(**values):
  return rows.Row(values, 'a.jsonl, line 7')


def test_the_first_field_that_is_there_counts():
  row = _row(a=None, b=3.0, c='4')
  assert row_fields.answer(row, ('a', 'b', 'c'), answers.as_is) == '3'
  assert row_fields.answer(row, ('c', 'b'), answers.as_is) == '4'
  assert row_fields.answer(row, ('a',), answers.as_is) is None


def test_an_answer_is_read_of_its_solution():
  row = _row(a='so 1 #### 2', b='so 1 #### proof', c='so 1')
  read = answers.after_hashes
  assert row_fields.answer(row, ('a',), read) == '2'
  assert row_fields.answer(row, ('b',), read) is None
  with pytest.raises(
    ValueError, match=r'^data\.files: a\.jsonl, line 7: no ans'
  ):
    row_fields.answer(row, ('c',), read)
  with pytest.raises(ValueError, match="line 7 has no field 'd'; its fields"):
    row_fields.answer(row, ('d',), read)


def test_a_prompt_is_a_text_or_the_only_turn():
  chat = [{'role': 'user', 'content': 'why?'}]
  assert row_fields.prompt(_row(p=chat), ('p',)) == 'why?'
  assert row_fields.prompt(_row(p='why?'), ('p',)) == 'why?'
  with pytest.raises(ValueError, match='line 7 has an empty prompt'):
    row_fields.prompt(_row(p=' '), ('p',))
