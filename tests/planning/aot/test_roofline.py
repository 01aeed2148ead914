import dataclasses

import pytest

from dppo_jax.planning.aot import programs, roofline
from tests.support import runs


@pytest.fixture(scope='module')
def experiment():
  return runs.experiment()


def test_weights_are_those_of_matrix_products(experiment):
  model = experiment.model
  # 2 layers: 4 + 2 · 2 heads of 8 in and out of 16, and 3 · 16 · 32.
  assert roofline.layer_weights(model) == 2 * (16 * 8 * 12 + 3 * 16 * 32)
  head = model.vocab_size * 16
  assert roofline.stored_weights(model) == (
    roofline.layer_weights(model) + head
  )


def test_a_token_meets_some_experts_and_a_batch_all(experiment):
  dense = experiment.model
  sparse = dataclasses.replace(
    dense, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=10
  )
  attention = 2 * 16 * 8 * 12
  assert roofline.layer_weights(sparse) == attention + 2 * 16 * (3 * 20 + 8)
  assert roofline.stored_weights(sparse) == (
    attention + 2 * 16 * (3 * 80 + 8) + dense.vocab_size * 16
  )


def test_work_by_hand(experiment):
  model, vocabulary = experiment.model, experiment.model.vocab_size
  found = roofline.work(experiment, tensor=1, num_devices=1)
  # 8 prompts of 6, 32 rows of 7; attention of 2 layers, 4 heads of 8.
  products = 2 * roofline.layer_weights(model) * (8 * 6 + 32 * 7)
  pairs = 8 * 6**2 / 2 + 32 * 7 * (6 + 7 / 2)
  head = 2 * vocabulary * 16 * 32 * 7
  forward = products + 4 * 2 * 4 * 8 * pairs
  assert found[programs.SAMPLING].flops == forward + head
  assert found[programs.SCORING].flops == forward + head
  assert found[programs.TRAINING].useful == 3 * (forward + head)
  assert found[programs.TRAINING].flops == 3 * (forward + head)
  # A step reads all weights, and half of the cache at the mean.
  cache = 2 * 2 * 2 * 8 * 4 * (8 * 6 + 32 * 7 / 2)
  weights = 4 * roofline.stored_weights(model)
  assert found[programs.SAMPLING].num_bytes == 7 * (weights + cache)
  split = roofline.work(experiment, tensor=2, num_devices=4)
  assert split[programs.SAMPLING].num_bytes == 7 * (weights / 2 + cache / 4)


def test_kernels_of_a_step_by_hand(experiment):
  pairs = 8 * 6**2 / 2 + 32 * 7 * (6 + 7 / 2)
  forward = 4 * 2 * 4 * 8 * pairs
  found = roofline.work(experiment, 1, 1)
  assert found[programs.SCORING].attention == forward
  assert found[programs.TRAINING].attention == 4.5 * forward
  full = dataclasses.replace(experiment.model, remat='full')
  again = roofline.work(dataclasses.replace(experiment, model=full), 1, 1)
  assert again[programs.TRAINING].attention == 5.5 * forward


def test_the_compilers_cycles_and_kernels_are_seconds():
  done = roofline.Work(
    useful=1, flops=1, attention=4 * 0.4 * 459e12 * 3, num_bytes=0
  )
  found = roofline.compiled_seconds(done, 459e12 / 2**18 * 2, 'TPU v5', 4)
  assert found == pytest.approx(2 + 3)
  assert roofline.compiled_seconds(done, 0.0, 'TPU v5', 4) is None
  assert roofline.compiled_seconds(done, 1e9, 'TPU v6 lite', 4) is None


def test_slots_read_the_weights_more_often(experiment):
  sampling = dataclasses.replace(experiment.sampling, num_slots=8)
  waves = dataclasses.replace(experiment, sampling=sampling)
  plain = roofline.work(experiment, 1, 1)[programs.SAMPLING]
  found = roofline.work(waves, 1, 1)[programs.SAMPLING]
  assert found.useful == plain.useful
  # Refills of one row: a prompt is run for each of the 32.
  more = 2 * roofline.layer_weights(experiment.model) * (32 - 8) * 6
  assert found.flops == plain.flops + more + 4 * 2 * 4 * 8 * 24 * 6**2 / 2
  # 32 rows in 8 slots of 6 + 7 columns.
  cache = 2 * 2 * 2 * 8 * 4 * 8 * (6 + 7 / 2)
  weights = 4 * roofline.stored_weights(experiment.model)
  assert found.num_bytes == 4 * 7 * (weights + cache)


def test_what_is_computed_again_is_no_use(experiment):
  full = dataclasses.replace(experiment.model, remat='full')
  again = dataclasses.replace(experiment, model=full)
  plain = roofline.work(experiment, 1, 1)[programs.TRAINING]
  found = roofline.work(again, 1, 1)[programs.TRAINING]
  assert found.useful == plain.useful
  assert 1.25 < found.flops / plain.flops < 4 / 3


def test_the_longest_of_three_times_counts():
  done = roofline.Work(
    useful=1, flops=197e12 * 4, attention=0.0, num_bytes=0.819e12 * 3
  )
  found = roofline.estimate(done, 'TPU v5 lite', 4, sent=0.2e12 * 2)
  assert found is not None
  assert found.compute_s == 1
  assert found.memory_s == pytest.approx(3)
  assert found.links_s == pytest.approx(2)
  assert found.seconds == found.memory_s
  assert roofline.estimate(done, 'cpu', 4, 0) is None
