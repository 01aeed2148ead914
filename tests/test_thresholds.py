import dataclasses
import math

from dppo_jax import thresholds


def test_every_field_says_what_it_may_be():
  for field in dataclasses.fields(thresholds.Thresholds):
    opened = field.metadata['open']
    if 'choices' in field.metadata:
      assert opened == field.metadata['choices'][0]
      continue
    low, closed, high = field.metadata['range']
    assert low <= opened <= high
    assert isinstance(closed, bool)
    assert isinstance(opened, float)


def test_metadata_of_a_number_and_of_a_name():
  assert thresholds.number(1.0, 0.0, closed=False) == {
    'open': 1.0,
    'range': (0.0, False, math.inf),
  }
  assert thresholds.one_of('a', 'b') == {'open': 'a', 'choices': ('a', 'b')}
