"""What watches the tests: their CPU time, and the mutations they notice."""

import ast
import collections
import json
import operator
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import jax
from jax._src import lru_cache
from jax._src.interpreters import mlir
import pytest

from dppo_jax.runtime import iteration
from dppo_jax.runtime.programs import compiled, parts
from tests.support import (
  cpu_time,
  examples,
  mutations,
  programs,
  runs,
  slow,
)

_BUSY = """
import subprocess, sys, time
LOOP = 'import time\\nwhile time.process_time() < 0.3: pass'
def test_here():
  end = time.process_time() + 0.2
  while time.process_time() < end: pass
def test_in_a_child():
  subprocess.run([sys.executable, '-c', LOOP], check=True)
"""


def _pytest(folder, *arguments):
  (folder / 'test_busy.py').write_text(_BUSY)
  return subprocess.run(
    [
      *(sys.executable, '-m', 'pytest', '-c', os.devnull, '-q'),
      *('-p', 'xdist.plugin', '-p', 'tests.support.cpu_time'),
      *('--rootdir', str(folder), *arguments, str(folder)),
    ],
    cwd=runs.ROOT,
    # All others take a second to import.
    env={**os.environ, 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'},
    capture_output=True,
    text=True,
    timeout=runs.END_S,
    check=False,
  )


def test_a_run_past_its_budget_fails_and_tells_where_it_went(tmp_path):
  ended = _pytest(tmp_path, '--cpu-budget=0.4')
  assert ended.returncode == pytest.ExitCode.TESTS_FAILED
  report = ended.stdout.partition('CPU time')[2]
  assert 'of 0.4' in report
  assert 'Failed: more CPU time' in report
  rows = [line.split() for line in report.splitlines() if ' s  ' in line]
  found = {row[-1].partition('::')[2]: float(row[0]) for row in rows}
  assert found['test_here'] >= 0.2
  assert found['test_in_a_child'] >= 0.3
  assert '2 passed' in report


def test_workers_are_added_up(tmp_path):
  record = tmp_path / 'new' / 'record.json'
  ended = _pytest(
    *(tmp_path, '--cpu-budget=1e6', '--numprocesses=2'),
    f'--cpu-record={record}',
  )
  assert ended.returncode == 0
  here, child = json.loads(record.read_text()).values()
  assert (here >= 0.2, child >= 0.3) == (True, True)
  report = ended.stdout.partition('CPU time')[2]
  total = float(report.partition(' CPU-seconds of')[0].split()[-1])
  assert total > 0.5 + 2 * 0.1  # Both tests; two interpreters started.


def test_the_slowest_and_the_shares():
  tests = {f'tests/ops/test_x.py::test_{i}': float(i) for i in range(20)}
  tests['tests/test_docs.py::test_a'] = 10.0
  assert cpu_time.shares(tests, 400.0) == [
    ('imports, collection', 200.0, 0.5),
    ('ops', 190.0, 0.475),
    ('test_docs.py', 10.0, 0.025),
  ]
  shown = cpu_time.lines(tests, 400.0, 0)
  assert shown[0] == '   19.0 s  tests/ops/test_x.py::test_19'
  assert sum('::' in line for line in shown) == 15
  assert shown[-1] == '  400.0 CPU-seconds'


def test_slow_tests_are_marked_and_their_files_come_first(monkeypatch):
  listed = {'b.py::x': 2.0, 'c.py::y': 1.0, 'c.py::z': 3.0}
  monkeypatch.setattr(slow, 'read', lambda: listed)
  marked = []
  items = [
    SimpleNamespace(
      nodeid=each, add_marker=lambda _, each=each: marked.append(each)
    )
    for each in ('a.py::x', 'b.py::w', 'b.py::x[1]', 'c.py::z')
  ]
  sys.modules[_conftest()].pytest_collection_modifyitems(items)
  assert marked == ['b.py::x[1]', 'c.py::z']
  assert [each.nodeid[0] for each in items] == ['c', 'b', 'b', 'a']


def test_the_list_of_slow_tests_is_of_tests_that_are_there(tmp_path):
  def is_there(test):
    path, *_, name = test.split('::')
    file = runs.ROOT / path
    return file.is_file() and f'def {name}(' in file.read_text()

  there = [is_there(test) for test in slow.read()]
  assert len(there) > 50
  # Some may have been renamed since; the next list is without them.
  assert sum(there) > 0.9 * len(there)
  seconds = {'a.py::x[1]': 0.3, 'a.py::x[2]': 0.3, 'a.py::y': 0.1}
  slow.write(slow.slow(seconds), tmp_path / 'list')
  assert slow.read(tmp_path / 'list') == {'a.py::x': 0.6}


def _conftest():
  (name,) = (
    name
    for name, module in list(sys.modules.items())
    if getattr(module, '__file__', None) == str(runs.ROOT / 'tests/conftest.py')
  )
  return name


def test_thorough_tests_draw_more():
  assert examples.examples(10).max_examples == (
    200 if examples.THOROUGH else 10
  )
  assert examples.examples(10).derandomize


def test_runs_share_programs_of_what_does_not_differ(monkeypatch):
  def made(**overrides):
    experiment = runs.experiment(runs.config(**overrides))
    with programs.shared():
      model = parts.assemble_model(experiment)
      sampler = compiled.compile_sampler(model, experiment.sampling)
      return model, sampler, iteration.compile_step(experiment, model)

  # Or what other tests made would be forgotten meanwhile, and these with it.
  monkeypatch.setattr(programs, '_made', collections.OrderedDict())
  first, again = made(), made(seed=1, checkpoints__keep=1)
  assert all(a is b for a, b in zip(first, again, strict=True))
  other_rule = made(trust_region__rule='none')
  same = [a is b for a, b in zip(first, other_rule, strict=True)]
  assert same == [True, True, False]
  assert made(sampling__temperature=0.5)[1] is not first[1]
  assert made(model__d_ff=48)[0] is not first[0]
  assert made(optimizer__learning_rate=0.5)[1] is first[1]
  with programs.apart():
    assert made()[1] is not first[1]
  assert made()[1] is first[1]
  monkeypatch.setattr(compiled, 'compile_sampler', lambda *args: 'a spy')
  assert made()[1] == 'a spy'


def test_a_shared_program_cannot_depend_on_more_than_its_row_says():
  experiment = runs.experiment()
  whole = parts.assemble_model(experiment)
  batcher = (compiled, 'compile_batcher')
  read = programs._read(batcher, experiment)
  assert read.rewards.truncated == experiment.rewards.truncated
  for path in ('loss', 'rewards.verifier'):
    with pytest.raises(AttributeError, match='_MAKERS does not say so'):
      operator.attrgetter(path)(read)
  assert programs._read(batcher, whole).optimizer is None
  config = programs._read((compiled, 'compile_sampler'), experiment.sampling)
  assert not hasattr(config, 'lag')


def test_a_thread_lowers_in_one_context():
  seen = [mlir.make_ir_context() for _ in range(3)]
  thread = threading.Thread(target=lambda: seen.append(mlir.make_ir_context()))
  thread.start()
  thread.join()
  assert seen[0] is seen[1] or seen[1] is seen[2]  # A new one may be due.
  assert all(seen[3] is not context for context in seen[:3])


def test_programs_that_are_kept_are_whole(monkeypatch, tmp_path):
  assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
  seen, folder = [], lru_cache.LRUCache(str(tmp_path), max_size=-1)
  path_type = type(folder.path)
  write = path_type.write_bytes

  def look(path, content):
    seen.append(folder.get('program'))
    return write(path, content)

  monkeypatch.setattr(path_type, 'write_bytes', look)
  folder.put('program', b'code')
  folder.put('program', b'other')  # The first stays.
  assert (seen, folder.get('program')) == ([None], b'code')
  assert len(list(tmp_path.iterdir())) == 1


_SOURCE = '''"""Not 1 < 2."""
def f(x: int = 3, *, y=True) -> float:
  if x <= 0 and y:
    raise ValueError(f'{x + 1}: ' + 'at least 1.')
  chex.assert_rank(x, 2)
  return jnp.maximum(-x, 1.5) / 2
'''


def test_a_mutation_changes_one_thing_that_counts():
  found = mutations.candidates(_SOURCE)
  assert {after.strip() for _, _, after in found} == {
    'def f(x: int = 4, *, y=True) -> float:',
    'def f(x: int = 3, *, y=False) -> float:',
    'if x < 0 and y:',
    'if x <= 1 and y:',
    'if x <= 0 or y:',
    'return jnp.minimum(-x, 1.5) / 2',
    'return jnp.maximum(x, 1.5) / 2',
    'return jnp.maximum(-x, 2.5) / 2',
    'return jnp.maximum(-x, 1.5) * 2',
    'return jnp.maximum(-x, 1.5) / 3',
  }


@pytest.mark.parametrize(
  ('known', 'first'),
  [({}, []), ({'killed': ''}, []), ({'killed': 'a.py::b'}, ['a.py::b'])],
)
def test_a_mutation_meets_its_file_then_its_folder(known, first):
  mutation = {'module': 'dppo_jax/ops/masking.py', **known}
  assert mutations.tests_of(mutation, runs.ROOT) == [
    *first,
    'tests/ops/test_masking.py',
    'tests/ops',
  ]


def test_a_mutation_meets_all_parts_of_its_tests(tmp_path):
  folder = tmp_path / 'tests/ops'
  folder.mkdir(parents=True)
  names = ('test_ratios.py', 'test_ratios_by_hand.py', 'test_others.py')
  for name in names:
    (folder / name).touch()
  mutation = {'module': 'dppo_jax/ops/ratios.py'}
  assert mutations.tests_of(mutation, tmp_path) == [
    'tests/ops/test_ratios.py',
    'tests/ops/test_ratios_by_hand.py',
    'tests/ops',
  ]


def test_mutations_are_drawn_by_their_seed():
  drawn = mutations.draw(10, seed=3)
  assert drawn == mutations.draw(10, seed=3) != mutations.draw(10, seed=4)
  assert len(drawn) == 60
  for area in mutations.AREAS:
    inside = [d for d in drawn if d['module'].startswith(f'dppo_jax/{area}/')]
    assert len(inside) == 10
  for mutation in drawn:
    lines = (runs.ROOT / mutation['module']).read_text().splitlines()
    assert lines[mutation['line'] - 1] == mutation['before']
    lines[mutation['line'] - 1] = mutation['after']
    ast.parse('\n'.join(lines))
    assert (runs.ROOT / mutations.mirrored_test(mutation['module'])).is_file()


def test_a_mutation_is_applied_where_its_line_moved(tmp_path):
  path = tmp_path / 'm.py'
  path.write_text('import x\n\na = 1\nb = 2\n')
  mutation = dict(module='m.py', line=1, before='a = 1', after='a = 2')
  assert mutations.apply(mutation, tmp_path) == 'import x\n\na = 1\nb = 2\n'
  assert path.read_text() == 'import x\n\na = 2\nb = 2\n'
  with pytest.raises(ValueError, match='draw anew'):
    mutations.apply(mutation, tmp_path)
