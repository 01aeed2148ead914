import pytest

from dppo_jax import reasoning_tasks
from dppo_jax.rewards import library_scores
from dppo_jax.rewards.pool import VerifierPool
from tests.support import environments


@pytest.fixture(autouse=True)
def library(monkeypatch):
  environments.stand_in(monkeypatch)
  yield
  environments.forget()


def _example(item=0, name='sums'):
  entry = reasoning_tasks.open_task(name, {})[item]
  return {
    'prompt': entry['question'],
    'answer': entry['answer'],
    'task': name,
    'parameters': {},
    'item': item,
  }


def test_full_marks_and_partial_credit():
  example = _example()
  answer = example['answer']
  full, partial = (
    [fn(text, example) for text in (answer, f'{answer} apples', 'x')]
    for fn in (
      library_scores.reasoning_gym,
      library_scores.reasoning_gym_partial,
    )
  )
  assert full == [(1.0, 'right'), (0.0, 'wrong'), (0.0, 'wrong')]
  share = len(answer) / len(f'{answer} apples')
  assert partial == [(1.0, 'right'), (share, 'partial'), (0.0, 'wrong')]


def test_scorers_that_raise_or_hang_cost_their_own_reward_only():
  examples = [_example(i) for i in range(5)]
  texts = [example['answer'] for example in examples]
  texts[1:4] = ['hang', 'raise', f'<answer> {texts[3]}\n</answer>']
  settings = ('reasoning_gym', 'answer_tag, whole', 1, 0.5, 4096, 60.0)
  with VerifierPool(*settings) as pool:
    verdicts = pool.verify(texts, examples, [False] * 5)
  assert [verdict.reason for verdict in verdicts] == [
    'right',
    'timeout',
    'error: RuntimeError: a bug',
    'right',
    'right',
  ]


def test_workers_without_the_library_say_so(monkeypatch, tmp_path):
  (tmp_path / 'reasoning_gym.py').write_text('raise ImportError("gone")')
  environments.forget()
  monkeypatch.syspath_prepend(str(tmp_path))
  with pytest.raises(ValueError, match=r"needs 'reasoning_gym' .gone."):
    VerifierPool('reasoning_gym', 'whole', 1, 2.0, 4096, 60.0)
