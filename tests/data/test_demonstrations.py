"""Demonstrations: aligned, noisy as asked, a pure function of the step."""

import numpy as np
import pytest

from dppo_jax.data import demonstrations, tasks, word_tokenizer


def _stream(name='sort', **changes):
  task = tasks.TASKS[name]
  rows = tasks.generate_unique(name, 500)
  settings = {
    'task': task,
    'examples': [{'example_id': i, **row} for i, row in enumerate(rows)],
    'tokenizer': word_tokenizer.WordTokenizer(task.vocabulary),
    'batch_size': 32,
    'max_prompt_length': task.max_prompt_length,
    'max_completion_length': task.max_completion_length,
    'overlong': 'error',
    'noise': 0.0,
    'seed': 0,
  }
  return demonstrations.DemonstrationStream(**{**settings, **changes})


def test_a_clean_row_is_prompt_answer_and_end():
  stream = _stream(max_prompt_length=11, max_completion_length=12)
  batch = stream.batch(3)
  answers = {
    row['prompt']: row['answer'] for row in tasks.generate_unique('sort', 500)
  }
  tokenizer = word_tokenizer.WordTokenizer(tasks.TASKS['sort'].vocabulary)
  assert batch['tokens'].shape == (32, 23)
  assert batch['tokens'].dtype == np.int32
  for tokens, mask, imitated in zip(
    batch['tokens'], batch['token_mask'], batch['completion_mask'], strict=True
  ):
    assert mask.tolist() == [False] * 2 + [True] * 18 + [False] * 3
    assert imitated.tolist() == [False] * 11 + [True] * 9 + [False] * 3
    prompt = tokenizer.decode(tokens[:11])
    assert tokenizer.decode(tokens[imitated]) == answers[prompt]
    assert tokens[imitated][-1] == tokenizer.eos_ids[0]
    assert (tokens[~mask] == tokenizer.pad_id).all()


@pytest.mark.parametrize('name', tasks.TASKS)
def test_every_task_fits_its_own_lengths(name):
  task = tasks.TASKS[name]
  batch = _stream(name, noise=0.3).batch(0)
  width = task.max_prompt_length + task.max_completion_length
  for array in batch.values():
    assert array.shape == (32, width)
  assert batch['token_mask'].dtype == batch['completion_mask'].dtype == bool
  # Each row imitates its end, and nothing that is not there.
  ends = (batch['tokens'] == 1) & batch['completion_mask']
  assert (ends.sum(axis=1) == 1).all()
  assert not (batch['completion_mask'] & ~batch['token_mask']).any()


def test_a_step_gives_the_same_batch_in_any_order_of_asking():
  one, other = _stream(noise=0.5), _stream(noise=0.5)
  late, early = one.batch(9), one.batch(2)
  for found, expected in ((other.batch(2), early), (other.batch(9), late)):
    for key in expected:
      np.testing.assert_array_equal(found[key], expected[key])
  assert (late['tokens'] != early['tokens']).any()


def test_seeds_differ():
  one, other = _stream(seed=0).batch(0), _stream(seed=1).batch(0)
  assert (one['tokens'] != other['tokens']).any()


def test_noise_comes_anew_in_every_epoch():
  stream = _stream(batch_size=500, noise=0.5)
  rows = []
  for step in (0, 1):
    tokens = stream.batch(step)['tokens']
    rows.append(tokens[np.lexsort(tokens[:, :9].T)])
  np.testing.assert_array_equal(rows[0][:, :9], rows[1][:, :9])
  # Redrawn in either epoch, and to different digits, 0.75 * 0.9 of the time.
  differ = (rows[0][:, 9:17] != rows[1][:, 9:17]).mean()
  assert differ == pytest.approx(0.675, abs=0.03)


def test_noise_depends_on_the_step():
  example = {'example_id': 0, **tasks.generate_unique('sort', 1)[0]}
  stream = _stream(examples=[example], noise=0.5)
  one, other = stream.batch(0)['tokens'], stream.batch(1)['tokens']
  assert (one != other).any()


def test_the_noise_rate_is_what_was_asked():
  clean = _stream(batch_size=500, noise=0.0).batch(0)['tokens']
  noisy = _stream(batch_size=500, noise=0.1).batch(0)['tokens']
  assert (clean != noisy)[:, 9:17].mean() == pytest.approx(0.09, abs=0.02)
  np.testing.assert_array_equal(clean[:, :9], noisy[:, :9])


def test_given_branch_words_are_seen_but_not_imitated():
  task = tasks.TASKS['running_sum']
  think = task.vocabulary.index(tasks.THINK)
  batch = _stream('running_sum', batch_size=500).batch(0)
  thinking = batch['tokens'][:, 6] == think
  imitated = batch['completion_mask'][:, 6]
  assert 200 < thinking.sum() < 300
  assert imitated[~thinking].all()
  assert imitated[thinking].mean() < 0.05
  assert batch['token_mask'][:, 6].all()
  assert batch['completion_mask'][thinking][:, 7:].all()


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    ({'noise': 1.5}, r'sft\.noise: got 1\.5'),
    ({'noise': float('nan')}, r'sft\.noise: got nan'),
    ({'batch_size': 0}, r'sft\.batch_size: got 0'),
    (
      {'max_completion_length': 8},
      r'sampling\.max_completion_length: got 8; .* need 9',
    ),
    ({'max_prompt_length': 8}, r'data\.max_prompt_length: 500 of 500'),
  ],
)
def test_bad_settings_are_refused(changes, match):
  with pytest.raises(ValueError, match=match):
    _stream(**changes)


def test_overlong_prompts_are_filtered_here_too():
  rows = tasks.generate_unique('sort', 3)
  rows[1]['prompt'] += ' ='
  examples = [{'example_id': i, **row} for i, row in enumerate(rows)]
  stream = _stream(examples=examples, overlong='filter')
  assert (stream.num_examples, stream.num_filtered) == (2, 1)
