import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.learner import state as state_lib
from dppo_jax.models.attention import dispatch
from dppo_jax.runtime.programs import compiled
from tests.support import programs, runs

_COMPILE = """
import os, sys
name = 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'
os.environ.pop(name, None)
import jax, jax.numpy as jnp
from dppo_jax.runtime.programs import compiled

compiled.use_compilation_cache(sys.argv[1])
print(jax.config.jax_persistent_cache_min_compile_time_secs)
# However fast this machine compiles; what the environment says stands.
os.environ[name] = '0'
jax.config.update(name.lower(), 0.0)
compiled.use_compilation_cache(sys.argv[1])
jax.jit(lambda x: jnp.sort(jnp.sin(x) @ x.T))(jnp.ones((8, 8)))
"""


def test_compiled_programs_are_kept(tmp_path):
  folder = tmp_path / 'new' / 'cache'
  seconds = float(runs.said(_COMPILE, folder, fresh=True))
  assert 0 < seconds < 1  # What compiles faster is not worth a file.
  assert any(folder.iterdir())


def test_no_folder_changes_nothing(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  before = jax.config.jax_compilation_cache_dir
  compiled.use_compilation_cache('')
  assert jax.config.jax_compilation_cache_dir == before
  assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_made_says_so(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match=r'^compilation_cache: cannot make .*/x'):
    compiled.use_compilation_cache(str(tmp_path / 'file' / 'x'))


def test_a_program_is_given_its_base_and_tells_its_shapes():
  program = compiled.Program(
    jax.jit(lambda base, x, y: base * x + y), jnp.float32(2)
  )
  assert float(program(3.0, 1.0)) == 7.0
  shape = jax.ShapeDtypeStruct((4,), jnp.float32)
  assert program.shapes(shape, shape).shape == (4,)
  lowered = program.lower(shape, shape)
  base, x, _ = lowered.in_avals[0]
  assert (base.shape, x.shape) == ((), (4,))
  assert lowered.compile().memory_analysis() is not None


def test_the_base_of_a_program_may_be_abstract():
  shape = jax.ShapeDtypeStruct((4,), jnp.float32)
  program = compiled.StepProgram(
    jax.jit(lambda state, batch, shared: (state + batch + shared[1],)), shape
  )
  assert program.lower(shape, shape).out_info[0].shape == (4,)


def test_a_sampler_in_stages_draws_what_one_program_does(monkeypatch):
  monkeypatch.setattr(dispatch, '_CPU_DECODE_KEYS', 2)
  settings = runs.smallest(sampling__cache_columns=1)
  experiment, parts = runs.experiment(settings), runs.parts(settings)
  with programs.apart(), runs.quick_compilation():
    state = state_lib.init_state(
      parts.policy, parts.optimizer, parts.shardings, 0
    )
    drawn = state.params, parts.prompts.batch(0), state.key
    grown, whole = (
      compiled.compile_sampler(
        parts, dataclasses.replace(experiment.sampling, cache_columns=columns)
      )
      for columns in (1, 0)
    )
    assert isinstance(grown, compiled.GrowingSampler)
    assert grown.widths == (4, 7)
    assert not isinstance(whole, compiled.GrowingSampler)
    got, expected = grown(*drawn), whole(*drawn)
  # A row that went beyond the first cache.
  assert expected.completion_mask.sum(1).max() > 5
  jax.tree.map(np.testing.assert_array_equal, got, expected)
