"""The library itself, which the extra `environments` brings."""

import pytest

from dppo_jax import reasoning_tasks
from dppo_jax.data import reasoning_items
from dppo_jax.rewards.pool import VerifierPool


def test_answers_of_its_tasks_are_paid_in_the_verifier_processes(tmp_path):
  pytest.importorskip('reasoning_gym')
  entries = (
    ('chain_sum', 1.0, (('level', 1),)),
    'word_ladder',  # Its items follow the hash seed.
    'rearc',  # Its metadata would not survive JSON.
  )
  assert not list(reasoning_tasks.find_problems(entries))
  tasks = reasoning_tasks.parse(entries)
  loaded = reasoning_items.load(tasks, 'train', 12, tmp_path, 0.0)
  examples = loaded.examples
  texts = [f'<answer>{example["answer"]}\n</answer>' for example in examples]
  with VerifierPool('reasoning_gym', 'answer_tag', 1, 2.0, 4096, 60.0) as pool:
    right = pool.verify(texts, examples, [False] * len(texts))
    wrong = pool.verify(
      ['<answer>xyzzy</answer>'] * len(texts), examples, [False] * len(texts)
    )
  assert {example['task'] for example in examples} == {
    task.name for task in tasks
  }
  assert {verdict.reason for verdict in right} == {'right'}
  assert {verdict.reward for verdict in wrong} == {0.0}
