import dataclasses
import importlib
import math
import re
from unittest import mock

import pytest

from dppo_jax import hardware
from dppo_jax.planning.aot import (
  estimates,
  plan,
  programs,
  remedies,
  roofline,
  topologies,
)
from tests.support import recipes, runs


def _plan(
  name='gpu:8xh100', names=programs.PHASES, *, capacity=None, **settings
):
  topology = topologies.parse(name)
  return plan.make_plan(
    runs.config(**settings), topology, names, compiling=False, log=print
  )


@pytest.fixture
def small(monkeypatch):
  """H100s of so many bytes."""

  def shrink(size):
    row = hardware.DEVICES['NVIDIA H100']._replace(memory=size)
    monkeypatch.setattr(
      hardware, 'DEVICES', {**hardware.DEVICES, 'NVIDIA H100': row}
    )

  return shrink


def test_a_plan_by_shape():
  found = _plan()
  assert found.fits
  assert found.mesh == dict(data=8, fsdp=1, expert=1, tensor=1)
  assert [phase.name for phase in found.phases] == list(programs.PHASES)
  assert [phase.runs for phase in found.phases] == [1, 0, 1]
  assert all(phase.compiled is None for phase in found.phases)
  assert found.tokens_per_step == 32 * 7
  by_name = {phase.name: phase for phase in found.phases}
  shapes = found.shapes
  state = shapes['parameters'] + shapes['optimizer state']
  assert by_name[programs.SAMPLING].num_bytes == pytest.approx(
    state
    + shapes['sampling cache']
    + shapes['recorded stats']
    + shapes['sampler logits']
  )
  sampling, _, training = found.phases
  assert found.step_s == (sampling.estimate.seconds + training.estimate.seconds)


def test_what_does_not_fit_comes_with_a_change(small):
  whole = _plan().phases[-1].num_bytes
  small(0.9 * whole)
  found = _plan(names=[programs.TRAINING])
  (training,) = found.phases
  assert not found.fits
  assert training.num_bytes == whole > found.capacity
  assert found.change.startswith('--config.')
  assert 0 < training.change_bytes <= 0.9 * found.capacity
  assert found.step_s is None  # Of a step whose other phases are not planned.


def test_one_change_is_for_all_phases(small):
  settings = dict(data__num_prompts=64, learner__num_microbatches=1)
  sampling, _, training = _plan(**settings).phases
  small(0.4 * min(sampling.num_bytes, training.num_bytes))
  found = _plan(**settings)
  assert {phase.name: phase.fits for phase in found.phases} == {
    programs.SAMPLING: False,
    programs.SCORING: False,
    programs.TRAINING: False,
  }
  assert 'num_microbatches=' in found.change
  assert 'num_slots=' in found.change
  after = plan.make_plan(
    _with_flags(runs.config(**settings), found.change),
    found.topology,
    programs.PHASES,
    compiling=False,
    log=print,
  )
  assert after.fits
  for before, now in zip(found.phases, after.phases, strict=True):
    if before.runs:
      assert before.change_bytes == pytest.approx(now.num_bytes)


def test_nothing_helps_without_room_for_the_state(small):
  small(1000.0)
  found = _plan(names=[programs.TRAINING])
  assert not found.fits
  assert found.change == ''
  state = found.shapes['parameters'] * 2 + found.shapes['optimizer state']
  # As it is, every device has all of it.
  assert found.least_devices == math.ceil(state / 1000)


def test_a_mesh_that_does_not_suit_comes_with_one_that_does():
  with pytest.raises(ValueError, match='the 16 batch shards') as caught:
    _plan('gpu:16xh100')
  assert str(caught.value).splitlines()[-1] == (
    'With --config.mesh.data=1 --config.mesh.fsdp=-1 --config.mesh.tensor=2 it'
    ' runs on this machine and fits, as estimated from shapes.'
  )


def test_what_is_wrong_everywhere_is_not_searched_for(monkeypatch):
  monkeypatch.setattr(remedies, 'find_remedy', None)
  with pytest.raises(ValueError, match='at most') as caught:
    _plan(sampling__top_k=17)
  assert 'runs on this machine' not in str(caught.value)


def test_a_phase_that_does_not_run_need_not_fit(small):
  sizes = {phase.name: phase.num_bytes for phase in _plan().phases}
  small(sizes[programs.SCORING] - 1)
  assert _plan(names=[programs.SCORING]).fits
  assert not _plan(
    names=[programs.SCORING], trust_region__anchor='recomputed'
  ).fits


def test_local_devices_have_no_data_sheet():
  found = _plan('local')
  assert found.fits
  assert found.step_s is None
  assert {phase.estimate for phase in found.phases} == {None}


def test_compiling_needs_a_machine_to_compile_for(monkeypatch):
  monkeypatch.setattr(topologies, 'can_compile', lambda platform='tpu': False)
  topology = topologies.parse('v5e:2x4')
  config = runs.config()
  with pytest.raises(ValueError, match='needs libtpu'):
    plan.make_plan(config, topology, programs.PHASES, compiling=True, log=print)
  by_shape = plan.make_plan(
    config, topology, programs.PHASES, compiling=False, log=print
  )
  assert by_shape.fits
  assert isinstance(by_shape.phases[0].estimate, roofline.StepEstimate)


@pytest.fixture(scope='module')
def traced():
  """Traces a model on a mesh once for all recipes and topologies."""
  known, trace = {}, estimates.weights_of

  def look_up(experiment, devices):
    key = (
      dataclasses.replace(experiment.model, remat='none', pretrained=''),
      experiment.mesh,
      experiment.lora,
      experiment.sampling.gather_fsdp,
      experiment.sampling.precision,
      bool(experiment.loss.kl_coefficient),
    )
    if key not in known:
      known[key] = trace(experiment, devices)
    return known[key]

  with mock.patch.object(estimates, 'weights_of', look_up):
    yield


def _with_flags(config, flags):
  for path, value in re.findall(r'--config\.([\w.]+)=(\S+)', flags):
    values = {'full': 'full', 'False': False}
    config.update_from_flattened_dict(
      {path: values[value] if value in values else int(value)}
    )
  return config


@pytest.mark.parametrize('name', ['gpu:8xh100', 'v5e:2x4', 'v5p:2x2x2'])
def test_every_recipe_fits_or_says_what_it_takes(
  name, traced, monkeypatch, tmp_path
):
  """Without weights, tokenizer and data."""
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setattr(topologies, 'can_compile', lambda platform='tpu': False)
  topology = topologies.parse(name)

  def make(config):
    return plan.make_plan(
      config, topology, programs.PHASES, compiling=False, log=print
    )

  outcomes = set()
  for recipe in recipes.RECIPES:
    module = importlib.import_module(f'dppo_jax.configs.{recipe}')
    try:
      found = make(module.get_config())
    except ValueError as error:
      flags = str(error).splitlines()[-1]
      assert 'With --config.' in flags, recipe
    else:
      flags = found.change
      outcome = 'fits' if found.fits else 'fits with a change'
      if not found.fits and not flags:
        outcome = 'too big'
        assert found.least_devices > 0.9 * topology.num_devices, recipe
      outcomes.add(outcome)
    if flags:
      assert make(_with_flags(module.get_config(), flags)).fits, recipe
  assert {'fits', 'fits with a change'} <= outcomes
