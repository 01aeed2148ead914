import functools
import json

import pytest

from dppo_jax.data import prompt_stream
from dppo_jax.learner import state as state_lib
from dppo_jax.rewards.verdicts import Verdict
from dppo_jax.runtime.evaluation import select_problems
from dppo_jax.runtime.hosts import preemption
from tests.support import runs

_NUM = 10


class _Pool:
  """Right by the parity of the words, but always or never for two problems."""

  def __init__(self):
    self.num_batches = 0

  def verify_terms(self, completions, examples, truncated):
    del truncated
    self.num_batches += 1
    verdicts = [
      Verdict(
        {'0': 0.0, '1': 1.0}.get(e['answer'], float(len(c.split()) % 2)), ''
      )
      for c, e in zip(completions, examples, strict=True)
    ]
    return [verdicts]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  path = tmp_path_factory.mktemp('rows') / 'rows.jsonl'
  rows = [
    {'prompt': f'{i} {i}', 'answer': str(i), 'level': 'L\u2028'}
    for i in range(_NUM)
  ]
  text = ''.join(json.dumps(r, ensure_ascii=False) + '\n' for r in rows)
  path.write_text(text, encoding='utf-8')
  return str(path)


@pytest.fixture(scope='module')
def select(source):
  """(path, …) -> what was selected, by a model without training."""

  @functools.cache
  def prepare(seed):
    settings = runs.smallest(
      seed=seed,
      data__source='rows',
      data__files=source,
      data__fields__level='level',
      evaluation__split='train',
    )
    parts = runs.parts(settings)
    with runs.quick_compilation():
      state = state_lib.init_state(
        parts.policy, parts.optimizer, parts.shardings, 0
      )
    return runs.experiment(settings), parts, state.params

  def run(path, pool=None, stop=None, seed=0, **overrides):
    options = dict(num_samples=6, low=0.1, high=0.9, note=lambda *_: None)
    with runs.quick_compilation():
      return select_problems.select(
        *prepare(seed),
        pool or _Pool(),
        stop or preemption.StopRequest(),
        path=path,
        **{**options, **overrides},
      )

  return run


def _rows(path):
  return [json.loads(x) for x in path.read_text().split('\n') if x]


def test_problems_solved_sometimes_are_kept(select, tmp_path):
  path, told = tmp_path / 'out.jsonl', []
  found = select(path, note=lambda *done: told.append(done))
  rows = _rows(path)
  assert found.num_problems == _NUM
  assert 0 < found.num_kept == len(rows) < _NUM
  assert not {'0', '1'} & {row['answer'] for row in rows}
  assert all(0.1 <= row['num_right'] / 6 <= 0.9 for row in rows)
  assert told == [(4, 10), (8, 10), (10, 10)]
  everything = _rows(found.sampled_path)[1:]
  # In a fixed order that is not the file's, so that any first part of them is
  # a sample.
  answers = [row['answer'] for row in everything]
  assert answers == [str(i) for i in prompt_stream.subset_order(_NUM)]
  assert answers != sorted(answers)
  num_right = {row['answer']: row['num_right'] for row in everything}
  assert (num_right['0'], num_right['1']) == (0, 6)
  assert [row for row in everything if row in rows] == rows


def test_what_is_written_is_a_source(select, tmp_path):
  path = tmp_path / 'out.jsonl'
  found = select(path)
  parts = runs.parts(
    runs.smallest(
      data__source='rows',
      data__files=str(path),
      data__fields__level='level',
      evaluation__split='train',
    )
  )
  assert parts.prompts.num_examples == found.num_kept
  assert parts.prompts.facts()['level'] == {'L\u2028': found.num_kept}


def test_it_goes_on_where_it_was_stopped(select, tmp_path):
  whole, path = tmp_path / 'whole.jsonl', tmp_path / 'out.jsonl'
  expected = select(whole)
  stop = preemption.StopRequest()
  stop.signal_number = 15
  with pytest.raises(preemption.Preempted, match='after 4 of 10 problems'):
    select(path, stop=stop)
  assert not path.exists()
  # A process was killed while it wrote the second batch.
  with (tmp_path / 'out.sampled.jsonl').open('a') as file:
    file.write('{"prompt": "3"}\n{"prom')
  pool = _Pool()
  found = select(path, pool)
  assert pool.num_batches == 2
  assert found.num_kept == expected.num_kept
  assert path.read_text() == whole.read_text()
  assert found.sampled_path.read_text() == expected.sampled_path.read_text()


def test_samples_in_the_order_of_the_file_are_refused(select, tmp_path):
  path = tmp_path / 'out.jsonl'
  found = select(path).sampled_path
  settings, *rows = _rows(found)
  del settings['order']  # As an earlier version wrote it.
  found.write_text(''.join(json.dumps(r) + '\n' for r in (settings, *rows)))
  with pytest.raises(ValueError, match='holds samples of another config'):
    select(path)


def test_other_bounds_need_no_sampling(select, tmp_path):
  path, pool = tmp_path / 'out.jsonl', _Pool()
  select(path)
  found = select(path, pool, low=0.0, high=1.0)
  assert pool.num_batches == 0
  assert found.num_kept == _NUM


def test_samples_of_another_config_are_not_mixed_in(select, tmp_path):
  path = tmp_path / 'out.jsonl'
  select(path)
  for change in (dict(num_samples=7), dict(seed=1)):
    with pytest.raises(ValueError, match=r'^--out: .* of another config'):
      select(path, **change)


@pytest.mark.parametrize(
  'options', [dict(num_samples=0), dict(low=0.95), dict(high=1.1)]
)
def test_bad_numbers_are_refused(select, tmp_path, options):
  with pytest.raises(ValueError, match='0 <= low <= high <= 1'):
    select(tmp_path / 'out.jsonl', **options)
