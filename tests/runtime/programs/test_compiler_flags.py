import types

import jax
import pytest

from dppo_jax.runtime.programs import compiler_flags


def _flags_with(monkeypatch, platforms, given, version=(0, 10, 2)):
  """XLA_FLAGS after the call, where JAX is to look for these platforms."""
  config = types.SimpleNamespace(jax_platforms=platforms)
  jax = types.SimpleNamespace(config=config, __version_info__=version)
  monkeypatch.setattr(compiler_flags, 'jax', jax)
  monkeypatch.setenv('XLA_FLAGS', given)
  compiler_flags.prefer_fast_compiling()
  return compiler_flags.os.environ['XLA_FLAGS'].split()


@pytest.mark.parametrize('platforms', ['cpu', None])
def test_flags_are_added_to_those_given(monkeypatch, platforms):
  found = {'libtpu': False, 'jax_plugins': False}
  monkeypatch.setattr(compiler_flags.importlib.util, 'find_spec', found.get)
  monkeypatch.setattr(
    compiler_flags.importlib.metadata, 'entry_points', lambda group: ()
  )
  flags = _flags_with(monkeypatch, platforms, '--xla_dump_to=x')
  assert flags == [
    '--xla_dump_to=x',
    '--xla_backend_optimization_level=1',
    '--xla_cpu_use_fusion_emitters=false',
  ]


def test_what_is_given_stands(monkeypatch):
  given = '--xla_backend_optimization_level=3'
  flags = _flags_with(monkeypatch, 'cpu', given)
  assert flags == [given, '--xla_cpu_use_fusion_emitters=false']


def test_a_flag_that_newer_versions_do_not_know_is_left_out(monkeypatch):
  flags = _flags_with(monkeypatch, 'cpu', '', version=(0, 12, 0))
  assert flags == ['--xla_backend_optimization_level=1']


@pytest.mark.parametrize('platforms', ['cuda', 'tpu,cpu'])
def test_accelerators_keep_their_flags(monkeypatch, platforms):
  assert _flags_with(monkeypatch, platforms, '') == []


@pytest.mark.parametrize('module', ['libtpu', 'jax_plugins'])
def test_a_plugin_may_bring_an_accelerator(monkeypatch, module):
  monkeypatch.setattr(
    compiler_flags.importlib.util, 'find_spec', lambda name: name == module
  )
  assert _flags_with(monkeypatch, None, '') == []


def test_a_plugin_of_an_entry_point_may_bring_one(monkeypatch):
  monkeypatch.setattr(
    compiler_flags.importlib.util, 'find_spec', lambda name: None
  )
  monkeypatch.setattr(
    compiler_flags.importlib.metadata, 'entry_points', lambda group: ('x',)
  )
  assert _flags_with(monkeypatch, None, '') == []


def test_options_of_small_programs_are_those_of_cpus():
  options = compiler_flags.of_small_program('cpu')
  double = jax.jit(lambda x: 2 * x, compiler_options=options)
  assert double(3) == 6  # A compiler refuses what it does not know.
  assert options
  assert compiler_flags.of_small_program('tpu') is None
