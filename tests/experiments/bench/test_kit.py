import math
from unittest import mock

import jax
import pytest

from dppo_jax.experiments.bench import kit
from tests.support import runs


@pytest.fixture(scope='module')
def found():
  sizes = kit.smoke()
  for config in (sizes.update, sizes.run):
    config.compilation_cache = ''
  with (
    runs.quick_compilation(),
    # Programs of one device are quicker to compile, and those of other tests.
    mock.patch.object(jax, 'device_count', return_value=1),
  ):
    return kit.measure(sizes, 60.0)


def test_every_part_runs_on_a_cpu(found):
  assert list(found) == ['head', 'sampler', 'decode', 'train step', 'run']
  for part, values in found.items():
    assert 'failed' not in values, (part, values)
    assert all(math.isfinite(v) for v in values.values()), part


def test_the_figures_that_it_is_for(found):
  assert found['head']['Top-K TV / bare'] > 0
  assert found['sampler']['sampling / product'] > 0
  assert found['decode']['all_tokens_per_s'] > 0
  assert found['train step']['useful_flop_per_s'] > 0
  assert found['run']['steps'] == 2
  # A CPU has no data sheet, and its compiler estimates nothing.
  assert not [key for key in found['head'] if 'by the compiler' in key]


def test_a_part_that_fails_does_not_take_the_others_with_it(monkeypatch):
  def fails(sizes, note):
    raise RuntimeError('RESOURCE_EXHAUSTED: too large\nand more')

  works = {'a': fails, 'b': lambda sizes, note: {'figure': 1.0}}
  monkeypatch.setattr(kit, '_PARTS', works)
  found = kit.measure(None, 60.0, note=lambda line: None)
  assert found['a']['failed'] == 'RESOURCE_EXHAUSTED: too large'
  assert found['b']['figure'] == 1.0


def test_no_part_begins_after_the_limit(monkeypatch):
  monkeypatch.setattr(kit, '_PARTS', {'a': lambda sizes, note: {}})
  found = kit.measure(None, -1.0, note=lambda line: None)
  assert 'skipped' in found['a']


def test_full_sizes_are_valid():
  sizes = kit.full()
  assert sizes.run.num_steps == 200
  experiment = kit.train_step.build(sizes.update)
  assert experiment.model.remat == 'full'
