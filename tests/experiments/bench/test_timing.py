import json
from types import SimpleNamespace

import jax.numpy as jnp

from dppo_jax.experiments.bench import timing


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


def test_the_time_of_a_process_is_measured(monkeypatch):
  """By clocks that the variants move: those of a busy machine jump."""
  cpu, wall = [0.0], [0.0]
  clocks = SimpleNamespace(
    process_time=lambda: sum(cpu), perf_counter=lambda: sum(wall)
  )
  monkeypatch.setattr(timing, 'time', clocks)

  def takes(*seconds):
    taken = iter(seconds)

    def run():
      cpu.append(next(taken))
      wall.append(8.0)
      return jnp.zeros(())

    return run

  # The first call compiles.
  variants = {'short': takes(64, 2, 1, 4), 'long': takes(64, 16, 32, 16)}
  notes = []
  found = timing.compare(variants, 3, notes.append)
  assert found == {
    'short': timing.Timing(seconds=2, least=1, wall=8),
    'long': timing.Timing(seconds=16, least=16, wall=8),
  }
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
