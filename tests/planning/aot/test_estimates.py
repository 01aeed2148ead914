import jax
import pytest

from dppo_jax import hardware
from dppo_jax.planning import memory
from dppo_jax.planning.aot import estimates, programs, topologies
from tests.support import runs


@pytest.fixture
def estimator():
  topology = topologies.parse('gpu:4xh100')
  return estimates.Estimator(
    runs.config(mesh__data=-1),
    topology,
    topologies.placeholders(topology),
  )


def test_a_phase_has_the_state_and_its_own_arrays(estimator):
  experiment = estimator.experiment({})
  shapes = estimator.shapes(experiment)
  state = shapes['parameters'] + shapes['optimizer state']
  assert estimates.state_bytes(shapes) == state
  assert estimates.phase_bytes(shapes, programs.TRAINING) == pytest.approx(
    state + sum(shapes.get(name, 0) for name in memory.TRAINING)
  )
  sizes = estimator({})
  assert sizes[estimates.STATE] == state
  assert sizes[programs.SCORING] < sizes[programs.TRAINING]


def test_placeholders_give_the_sizes_of_devices():
  topology = topologies.parse('gpu:8xh100')
  config = runs.config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2)
  one, other = (
    estimates.Estimator(config, topology, devices)({})
    for devices in (topologies.placeholders(topology), jax.devices())
  )
  assert one == other


def test_a_change_is_of_one_estimate_only(estimator):
  before = estimator({})
  less = estimator({'learner.num_microbatches': 4})
  assert less[programs.TRAINING] < before[programs.TRAINING]
  assert estimator({}) == before


@pytest.mark.parametrize(
  'change',
  [{'mesh.tensor': 3}, {'mesh.tensor': 4}, {'learner.num_microbatches': 5}],
)
def test_what_is_not_legal_has_no_estimate(estimator, change):
  assert estimator(change) is None


def test_weights_are_traced_once_per_model_and_mesh(estimator, monkeypatch):
  traced = []
  weights = memory.weights

  def count(experiment, parts):
    traced.append(dict(parts.mesh.shape))
    return weights(experiment, parts)

  monkeypatch.setattr(memory, 'weights', count)
  for change in (
    {},
    {'model.remat': 'full'},
    {'learner.num_microbatches': 4},
    {'mesh.tensor': 2},
    {'mesh.tensor': 2, 'sampling.num_slots': 8},
  ):
    assert estimator(change) is not None
  assert [mesh['tensor'] for mesh in traced] == [1, 2]


def test_a_problem_of_the_machine_is_told_from_one_of_the_config(estimator):
  assert estimator.is_legal_alone()
  topology = topologies.parse('gpu:4xh100')
  wrong = estimates.Estimator(
    runs.config(sampling__top_k=17),
    topology,
    topologies.placeholders(topology),
  )
  assert not wrong.is_legal_alone()


def test_the_chunk_is_that_of_the_device():
  experiment = runs.experiment()
  kind = 'TPU v6 lite'
  changed = estimates.for_device(experiment, kind)
  columns = experiment.model.vocab_size
  assert changed.learner.head_chunk_tokens == hardware.head_chunk_tokens(
    kind, columns
  )
  fixed = runs.changed(experiment, learner__head_chunk_tokens=7)
  assert estimates.for_device(fixed, kind) is fixed
  assert estimates.for_device(experiment, 'cpu') is experiment
