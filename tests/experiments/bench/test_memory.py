import gc
import mmap
import pathlib

import numpy as np
import pytest

from dppo_jax.configs import memory_1_7b
from dppo_jax.experiments.bench import memory
from dppo_jax.runtime.config.build import build_experiment
from tests.support import published, runs

_MB = 2**20


@pytest.fixture(autouse=True, scope='module')
def small_heap():
  """A meter collects garbage often, and all tests before left objects."""
  gc.collect()
  gc.freeze()
  yield
  gc.unfreeze()


@pytest.fixture(scope='module')
def experiment():
  config = memory_1_7b.get_config()
  config.compilation_cache = ''
  config.model.update(
    num_layers=2, d_model=16, d_ff=32, vocab_size=64, head_dim=8, num_heads=2
  )
  config.model.num_kv_heads = 2
  config.sampling.update(max_completion_length=12, top_k=5)
  return build_experiment(config, 1)


def _mapped(size):
  """Pages of the system, not of an allocator that may have some to spare."""
  pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
  for page in range(0, size, mmap.PAGESIZE):
    pages[page] = 1
  return pages


def test_a_stage_has_a_peak_of_its_own():
  told = []
  meter = memory.Meter(told.append)
  with meter.stage('large'):
    _mapped(200 * _MB).close()
  with meter.stage('small'):
    small = _mapped(_MB)
  with meter.stage('kept'):
    kept = _mapped(100 * _MB)
  large_stage, small_stage, kept_stage = meter.stages
  small.close()
  kept.close()
  assert large_stage.peak - large_stage.kept > 150 * _MB
  assert small_stage.peak < large_stage.peak - 150 * _MB
  assert kept_stage.kept - small_stage.kept > 80 * _MB
  assert [line.split()[0] for line in told] == ['large', 'small', 'kept']


def test_no_proc_is_said(monkeypatch):
  monkeypatch.setattr(memory, '_PROCESS', pathlib.Path('/nowhere'))
  with pytest.raises(ValueError, match=r'/nowhere/clear_refs: .* on Linux'):
    memory.reset_peak()


def test_every_stage_and_what_is_exported(experiment, tmp_path):
  """The adapters train; what they add is merged into what is written."""
  source, out = tmp_path / 'in', tmp_path / 'out'
  memory.write_random_model(experiment, source)
  meter = memory.Meter(lambda line: None)
  with runs.quick_compilation():
    memory.measure(experiment, source, out, meter=meter)
  names = ['import', 'sample', 'train', 'export']
  assert [stage.name for stage in meter.stages] == names
  before, after = published.arrays(source), published.arrays(out)
  assert before.keys() == after.keys()
  moved = {n for n in before if before[n].tobytes() != after[n].tobytes()}
  assert moved
  assert all(name.endswith('_proj.weight') for name in moved)
  assert float(before['model.norm.weight'].astype(np.float32).min()) == 1.0
  spread = before['model.embed_tokens.weight'].astype(np.float32).std()
  assert spread == pytest.approx(0.02, rel=0.1)
