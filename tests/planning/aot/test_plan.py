import pytest

from dppo_jax import hardware
from dppo_jax.planning.aot import plan, programs, roofline, topologies
from tests.support import runs


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
    + shapes['logits']
  )
  sampling, _, training = found.phases
  assert found.step_s == (sampling.estimate.seconds + training.estimate.seconds)


def test_the_chunk_is_that_of_the_device():
  experiment = runs.experiment()
  kind = 'TPU v6 lite'
  changed = plan._for_device(experiment, kind)
  columns = experiment.model.vocab_size
  assert changed.learner.head_chunk_tokens == hardware.head_chunk_tokens(
    kind, columns
  )
  fixed = runs.changed(experiment, learner__head_chunk_tokens=7)
  assert plan._for_device(fixed, kind) is fixed
  assert plan._for_device(experiment, 'cpu') is experiment


def test_what_does_not_fit_comes_with_a_change(small):
  whole = _plan().phases[-1].num_bytes
  small(0.9 * whole)
  found = _plan(names=[programs.TRAINING])
  (training,) = found.phases
  assert not found.fits
  assert training.num_bytes == whole > found.capacity
  assert training.change.startswith('--config.')
  assert 0 < training.change_bytes <= found.capacity
  assert found.step_s is None  # Of a step whose other phases are not planned.


def test_nothing_helps_without_room_for_the_state(small):
  small(1000.0)
  found = _plan(names=[programs.TRAINING])
  assert not found.fits
  assert found.phases[0].change == ''


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
  monkeypatch.setattr(topologies, 'can_compile', lambda: False)
  topology = topologies.parse('v5e:2x4')
  config = runs.config()
  with pytest.raises(ValueError, match='needs libtpu'):
    plan.make_plan(config, topology, programs.PHASES, compiling=True, log=print)
  by_shape = plan.make_plan(
    config, topology, programs.PHASES, compiling=False, log=print
  )
  assert by_shape.fits
  assert isinstance(by_shape.phases[0].estimate, roofline.StepEstimate)
