import numpy as np
import pytest

from dppo_jax.base import Rollout, TokenStats
from dppo_jax.data import tfds_builder
from dppo_jax.runtime.programs import compiled
from tests.support import runs


def test_training_and_evaluation_have_prompts_of_their_own():
  parts = runs.parts()
  train = set(parts.prompts.first(10**6).example_id.tolist())
  held_out = set(parts.held_out.first(10**6).example_id.tolist())
  assert len(train) == 16384
  assert len(held_out) == 1024
  assert not train & held_out


def _mixed_lengths(task, split, data_dir):
  del task, split, data_dir
  return tuple(
    {'example_id': i, 'prompt': ' '.join('1' * (i % 4 + 4)), 'answer': '1'}
    for i in range(40)
  )


def test_prompts_that_are_too_long_are_filtered_or_refused(monkeypatch):
  monkeypatch.setattr(tfds_builder, 'load_split', _mixed_lengths)
  assert runs.parts().prompts.num_filtered == 10
  with pytest.raises(
    ValueError, match=r'data\.max_prompt_length: 10 of 40 prompts exceed 6'
  ):
    runs.parts(runs.config(data__overlong='error'))


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_a_split_without_examples_is_refused(monkeypatch, split):
  load = tfds_builder.load_split

  def load_some(task, name, data_dir):
    return () if name == split else load(task, name, data_dir)

  monkeypatch.setattr(tfds_builder, 'load_split', load_some)
  with pytest.raises(ValueError, match='the split is empty'):
    runs.parts()


@pytest.mark.parametrize('policy', ['zero', 'score', 'mask'])
def test_a_completion_cut_by_the_limit_is_masked_where_asked(policy):
  experiment = runs.experiment(runs.config(rewards__truncated=policy))
  parts = runs.parts()
  count = experiment.sampling.group_size
  width = experiment.data.max_prompt_length + 2
  mask = np.tile(np.arange(width) >= width - 2, (count, 1))
  cut = np.arange(count) % 2 == 1
  rollout = Rollout(
    tokens=np.zeros((count, width), np.int32),
    token_mask=np.ones((count, width), bool),
    completion_mask=mask,
    stats=TokenStats(log_probs=np.where(mask, -1.0, 0.0).astype(np.float32)),
    group_id=np.zeros(count, np.int32),
    example_id=np.zeros(count, np.int32),
    truncated=cut,
  )
  rewards = np.arange(count, dtype=np.float32)
  build = compiled.compile_batcher(parts, experiment)
  batch, metrics = build(rollout, rewards, None, None)
  kept = ~cut if policy == 'mask' else np.ones(count, bool)
  expected = mask & kept[:, None]
  np.testing.assert_array_equal(batch.completion_mask, expected)
  centered = (rewards - rewards.mean())[:, None]
  np.testing.assert_allclose(batch.advantages, np.where(expected, centered, 0))
  assert metrics['rollout/truncated'] == 0.5
