import json
import time

import jax.numpy as jnp

from dppo_jax.runtime.bench import timing


def _busy(seconds):
  def run():
    end = time.process_time() + seconds
    while time.process_time() < end:
      pass
    return jnp.zeros(())

  return run


def test_variants_take_turns_and_the_first_call_does_not_count():
  order = []

  def variant(name):
    def run():
      order.append(name)
      return jnp.zeros(())

    return run

  found = timing.compare({'a': variant('a'), 'b': variant('b')}, 3, print)
  assert order == ['a', 'b', 'a', 'b', 'a', 'b', 'a', 'b']
  assert set(found) == {'a', 'b'}


def test_the_time_of_a_process_is_measured():
  notes = []
  variants = {'short': _busy(0.02), 'long': _busy(0.08)}
  found = timing.compare(variants, 3, notes.append)
  assert 0.015 < found['short'].seconds < 0.06
  assert 2 < found['long'].seconds / found['short'].seconds < 6
  assert found['long'].least <= found['long'].seconds
  assert notes[-1] == 'round 3 of 3'


def test_a_result_says_where_it_comes_from(tmp_path):
  path = timing.write(tmp_path / 'new', 'head', {'ratio': 1.5})
  assert path.endswith('head-cpu.json')
  with open(path, encoding='utf-8') as file:
    read = json.load(file)
  assert read['ratio'] == 1.5
  about = read['provenance']
  assert about['time'] == 'process CPU'
  assert about['cores'] >= 1
  assert about['jax'].count('.') >= 2


def test_columns_are_aligned():
  text = timing.table([('', 'ms'), ('long name', '1.0'), ('x', '10.0')])
  assert text.splitlines() == [
    '             ms',
    'long name   1.0',
    'x          10.0',
  ]
