import pathlib
import re

import pyarrow as pa
from pyarrow import parquet
import pytest

from dppo_jax.data import record_files


def _write(path, data):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)
  return path


def _read(path, columns=('a',)):
  return list(record_files.read_rows(path, columns))


def test_json_lines_keep_their_numbers(tmp_path):
  path = _write(tmp_path / 'x.jsonl', b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\r\n')
  assert _read(path) == [
    record_files.RawRecord({'a': 1}, f'{path}, line 1'),
    record_files.RawRecord({'a': 2}, f'{path}, line 3'),
  ]


def test_json_is_one_row_or_a_list(tmp_path):
  one = _write(tmp_path / 'one.json', b'{\n "a": 1\n}')
  many = _write(tmp_path / 'many.json', b'[{"a": 1}, {"a": 2}]')
  assert _read(one) == [record_files.RawRecord({'a': 1}, str(one))]
  assert [row.where for row in _read(many)] == [
    f'{many}, row 1',
    f'{many}, row 2',
  ]


def test_parquet_reads_the_columns_there_are(tmp_path):
  path = tmp_path / 'x.parquet'
  table = pa.table({'a': list(range(9000)), 'b': [0] * 9000})
  parquet.write_table(table, path)
  found = _read(path, ('a', 'c'))
  assert [row.values for row in found] == [{'a': i} for i in range(9000)]
  assert found[-1].where == f'{path}, row 9000'
  assert _read(path, ('c',))[0].values == {'a': 0, 'b': 0}
  assert (
    record_files.field_names(found[0]) == 'a, b'
  )  # For messages, all of them.
  assert _read(path, None)[0].values == {'a': 0, 'b': 0}


def test_all_columns_of_a_parquet_but_those_of_bytes(tmp_path):
  path = tmp_path / 'x.parquet'
  table = {
    'a': [1],
    'image': pa.array([{'bytes': b'x', 'path': 'y'}]),
    'images': pa.array([[b'x']]),
    'c': [[{'d': 'e'}]],
  }
  parquet.write_table(pa.table(table), path)
  assert _read(path, None)[0].values == {'a': 1, 'c': [{'d': 'e'}]}


def test_parquet_with_text_of_another_encoding_says_where(tmp_path):
  path = tmp_path / 'x.parquet'
  raw = pa.array([b'fine', b'caf\xe9'], pa.binary())
  text = pa.StringArray.from_buffers(2, *raw.buffers()[1:])
  parquet.write_table(pa.table({'a': text}), path)
  with pytest.raises(ValueError, match=r'x\.parquet, a row from 1 to 2, holds'):
    _read(path)


@pytest.mark.parametrize(
  ('name', 'data', 'match'),
  [
    ('x.jsonl', b'{"a": 1}\n{"a": "\xff"}\n', r'line 2 is not UTF-8 .*0xff'),
    ('x.json', b'{"a":\n\n"\xfe"}', r'line 3 is not UTF-8'),
    ('x.jsonl', b'{"a": 1}\n{"a": \n', r'line 2 is not JSON'),
    ('x.jsonl', b'[' * 200_000, r'line 1 is not JSON'),
    ('x.jsonl', b'[1]\n', r'line 1 is a list; .* name a list of rows \.json'),
    (
      'x.jsonl',
      b'{\n "a": 1\n}',
      r'line 1 is not JSON .*: name the file \.json',
    ),
    (
      'x.json',
      b'{"a": 1}\n{"a": 2}\n',
      r'lines of JSON: name the file \.jsonl',
    ),
    ('x.jsonl', b'{"a": "b \\udc00"}', r'line 1 holds half a ch.*\\udc00'),
    ('x.json', b'[{"a": 1}, {"a": ["\\ud800"]}]', r'row 2 holds half a char'),
    ('x.json', b'{"a": {"\\ud800": 1}}', r'x\.json holds half a character'),
    ('x.json', b'[{"a": 1}, 3]', r'row 2 is a int'),
    ('x.parquet', b'PAR1', r'cannot read .*x\.parquet'),
  ],
)
def test_damaged_files_say_where(tmp_path, name, data, match):
  path = _write(tmp_path / name, data)
  with pytest.raises(ValueError, match=r'^data\.files: .*' + match):
    _read(path)


def test_lookup_goes_inside():
  row = record_files.RawRecord({'a': {'b': {'c': 1}}, 'a.b': 2, 'd': 3}, '')
  assert record_files.lookup(row, 'a.b') == 2
  assert record_files.lookup(row, 'a.b.c') == 1
  assert record_files.lookup(row, 'd.x') is None
  inside = record_files.RawRecord({'a': [{'b': [1, 2]}, 3]}, '')
  assert record_files.lookup(inside, 'a.0.b.1') == 2
  assert record_files.lookup(inside, 'a[0].b[-1]') == 2
  assert record_files.lookup(inside, 'a[1]') == 3
  for path in ('a[2]', 'a[-3]', 'a.b', 'a[1].b', 'a[x]'):
    assert record_files.lookup(inside, path) is None
  assert record_files.field_names(row) == 'a.b, a.b, d'
  row = record_files.RawRecord({'a': {'b': None}, 'c': None, 'd': 0}, '')
  there = [
    path
    for path in ('a.b', 'c', 'd', 'a', 'x', 'c.x')
    if record_files.holds_null(row, path)
  ]
  assert there == ['a.b', 'c']


def test_a_split_is_a_word_of_the_path(tmp_path):
  names = ['train.jsonl', 'a/train-0.parquet', 'train/b/1.json', 'test.jsonl']
  names += ['train_socratic.jsonl', '.cache/train.jsonl', 'train.txt']
  for name in names:
    _write(tmp_path / name, b'')
  found = record_files.find_files('', tmp_path, 'train')
  assert [str(path.relative_to(tmp_path)) for path in found] == [
    'a/train-0.parquet',
    'train/b/1.json',
    'train.jsonl',
  ]
  assert len(record_files.find_files('', tmp_path, '')) == 5


def test_patterns(tmp_path, monkeypatch):
  for name in ('b[1].jsonl', 'a.jsonl', 'c.csv'):
    _write(tmp_path / name, b'')
  monkeypatch.setenv('HOME', str(tmp_path))

  def find(pattern):
    found = record_files.find_files(pattern, pathlib.Path('/nowhere'), 'train')
    return [path.name for path in found]

  assert find(f'{tmp_path}/*.jsonl') == ['a.jsonl', 'b[1].jsonl']
  assert find('~/b[1].jsonl') == ['b[1].jsonl']
  assert find('~/nothing*') == []
  with pytest.raises(ValueError, match=re.escape("ends in '.csv'; known: .js")):
    find('~/*')
