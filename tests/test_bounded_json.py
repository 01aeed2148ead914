import os

import pytest

from dppo_jax import bounded_json


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('{"a": [1, 2.5, null, "é"]}', {'a': [1, 2.5, None, 'é']}),
    ('"é"'.encode(), 'é'),
    (bytearray(b'[]'), []),
    ('"' + '[' * 1000 + '"', '[' * 1000),  # Text, not lists.
  ],
)
def test_values_are_those_of_json(text, expected):
  assert bounded_json.parse(text) == expected


def _nested(depth):
  return '[' * depth + ']' * depth


def test_depth_is_bounded_at_one_value():
  allowed = bounded_json.MAX_DEPTH
  assert bounded_json.parse(_nested(allowed))
  mixed = '{"a": [' * (allowed // 2) + ']}' * (allowed // 2)
  assert bounded_json.parse(mixed + ' ')
  for depth in (allowed + 1, 500, 100_000):
    with pytest.raises(ValueError, match='more than 64 lists and objects in e'):
      bounded_json.parse(_nested(depth))


@pytest.mark.parametrize(
  ('text', 'match'),
  [
    (b'', 'Expecting value'),
    (b'{"a": ', 'Expecting value'),
    (b'"\xff"', "can't decode"),
    (b'1' * 5000, 'digits'),
    (b'[[],[],[],[]]', 'more than 4 lists and objects'),
  ],
)
def test_every_problem_is_a_value_error(text, match):
  with pytest.raises(ValueError, match=match):
    bounded_json.parse(text, max_containers=4)


def test_no_more_of_a_file_is_read_than_it_may_have(tmp_path):
  path = tmp_path / 'x.json'
  path.write_text('[1, 2]')
  assert bounded_json.read(path, max_bytes=6) == [1, 2]
  with pytest.raises(ValueError, match='more than 5 bytes'):
    bounded_json.read(path, max_bytes=5)


def test_a_named_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'x.json')
  with pytest.raises(ValueError, match='no regular file'):
    bounded_json.read(tmp_path / 'x.json')


@pytest.mark.parametrize(
  ('text', 'match'),
  [('null', 'null'), ('[]', 'a list'), ('"a"', 'a string'), ('1', 'a number')],
)
def test_an_object_is_an_object(tmp_path, text, match):
  path = tmp_path / 'x.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=f'holds {match}, not an object'):
    bounded_json.read_object(path)
  path.write_text('{"a": 1}')
  assert bounded_json.read_object(path) == {'a': 1}


def test_a_missing_file_is_an_os_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    bounded_json.read(tmp_path / 'x.json')
