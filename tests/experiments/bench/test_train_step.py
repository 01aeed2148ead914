import jax
import pytest

from dppo_jax.configs import tiny
from dppo_jax.experiments.bench import train_step
from tests.support import runs


@pytest.fixture(scope='module')
def experiment():
  config = tiny.get_config()
  config.compilation_cache = ''
  config.data.update(num_prompts=2, group_size=2)
  with runs.quick_compilation():
    return train_step.build(config)


def test_both_steps_go_on_from_where_they_were(experiment):
  with runs.quick_compilation():
    variants = train_step.make_variants(experiment)
    for run in variants.values():
      assert [int(run()), int(run())] == [1, 2]
  assert set(variants) == {train_step.RL, train_step.CROSS_ENTROPY}


def test_useful_flop_by_hand(experiment):
  model = experiment.model
  with runs.quick_compilation():
    found = train_step.useful_flop(experiment)
  heads = model.num_heads * model.head_dim
  shared = model.num_kv_heads * model.head_dim
  layer = model.d_model * (2 * heads + 2 * shared + 3 * model.d_ff)
  norms = 2 * model.d_model + 2 * model.head_dim
  weights = model.num_layers * (layer + norms) + model.d_model
  completion = experiment.sampling.max_completion_length
  columns = experiment.loss.prompt_length + completion
  tokens = 4 * columns
  expected = 6 * tokens * weights
  expected += 6 * tokens * columns * model.num_layers * heads
  expected += 6 * 4 * completion * model.vocab_size * model.d_model
  assert found == pytest.approx(expected, rel=1e-12)
  assert jax.default_backend() == 'cpu'
