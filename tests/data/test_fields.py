import pytest

from dppo_jax.data import fields, record_files


def _row(**values):
  return record_files.RawRecord(values, 'FILE, line 1')


def test_templates_and_the_columns_they_read():
  assert fields.is_template('{a} b')
  assert not fields.is_template('a.b')
  assert not fields.is_template('{}')
  assert fields.columns('{a} {b.c[0]}') == ['a', 'a', 'b.c[0]', 'b']
  assert fields.columns('a.b') == ['a.b', 'a']


def test_a_template_needs_all_its_fields():
  row = _row(a=' One. ', b={'c': [1, 2.0]}, none=None)
  assert fields.fill(row, '{a} {b.c} \\boxed{}') == r'One. 1, 2 \boxed{}'
  assert fields.fill(row, '{a} {none}') is None
  assert fields.fill(row, '{a} {missing}') is None
  with pytest.raises(ValueError, match=r'^data\.fields\.prompt: FILE, line 1'):
    fields.fill(row, '{b}')


def test_a_field_cannot_name_another():
  """What a row says is text, never a template."""
  assert fields.fill(_row(a='{b}', b='x'), '{a}{b}') == '{b}x'


@pytest.mark.parametrize(
  ('text', 'match'),
  [
    (',', 'with commas'),
    ('a=', 'with commas'),
    ('prompt', "'prompt' is reserved"),
    ('component=x', "another name: 'row_component=x'"),
  ],
)
def test_a_bad_list_of_fields(text, match):
  with pytest.raises(ValueError, match=match):
    fields.parse_extra(text)


def test_none_some_and_all():
  row = _row(prompt='p', a=1, b={'c': [1]}, example_id=9, none=None, used='u')

  def carried(text, own=('used',)):
    return fields.keep_extra(row, fields.parse_extra(text), own)

  assert carried('') == ({}, [])
  assert carried('b.c, x=a') == ({'c': [1], 'x': 1}, [])
  assert carried('*') == ({'a': 1, 'b': {'c': [1]}}, [])
  assert carried('*, x=a') == ({'a': 1, 'b': {'c': [1]}, 'x': 1}, [])


def test_what_cannot_travel_is_named():
  deep = []
  for _ in range(100_000):
    deep = [deep]
  row = _row(
    bytes=b'x',
    nan=float('nan'),
    half='\ud800',
    deep=deep,
    long='x' * fields.MAX_FIELD_LENGTH,
    fine='y',
  )
  every = fields.parse_extra('*')
  kept, left_out = fields.keep_extra(row, every, ())
  assert kept == {'fine': 'y'}
  assert left_out == ['bytes', 'nan', 'half', 'deep', 'long']
  for name in ('bytes', 'nan', 'half', 'deep'):
    with pytest.raises(ValueError, match=f"cannot keep the field '{name}'"):
      fields.keep_extra(row, fields.parse_extra(name), ())
  named, _ = fields.keep_extra(row, fields.parse_extra('long'), ())
  assert len(named['long']) == fields.MAX_FIELD_LENGTH


def test_a_row_is_bounded_as_well():
  part = 'x' * (fields.MAX_FIELD_LENGTH - 10)
  row = _row(**{f'f{i}': part for i in range(9)})
  kept, left_out = fields.keep_extra(row, fields.parse_extra('*'), ())
  assert sum(map(len, kept.values())) <= fields.MAX_ROW_LENGTH
  assert len(kept) + len(left_out) == 9
  assert left_out
