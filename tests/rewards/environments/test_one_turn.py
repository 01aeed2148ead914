import pytest

from dppo_jax import reasoning_tasks
from dppo_jax.rewards.environments.pool import EnvironmentPool
from dppo_jax.rewards.environments.replies import end
from tests.support import environments


@pytest.fixture(autouse=True)
def library(monkeypatch):
  environments.stand_in(monkeypatch)
  yield
  environments.forget()


def _example():
  entry = reasoning_tasks.open_task('sums', {})[0]
  return {
    'prompt': entry['question'],
    'answer': entry['answer'],
    'task': 'sums',
    'parameters': {},
    'item': 0,
  }


def _reply(name, *messages):
  example = _example()
  with EnvironmentPool(name, 'whole', 1, 0.5, 4096, 60.0) as pool:
    return pool.reply([(text, None, example, 3) for text in messages])


def test_one_message_is_judged_by_the_scorer_of_its_item():
  answer = _example()['answer']
  messages = [
    answer,
    f'<think>{answer}</think>so <answer> {answer}\n</answer>.',
    f'{answer} apples',
    ' ',
    'hang',
  ]
  assert _reply('reasoning_gym', *messages) == [
    end(1.0, 'right'),
    end(1.0, 'right'),
    end(0.0, 'wrong'),
    end(0.0, 'empty'),
    end(0.0, 'timeout'),
  ]
  share = len(answer) / len(f'{answer} apples')
  assert _reply('reasoning_gym_partial', messages[2]) == [end(share, 'partial')]


def test_without_the_library_nothing_is_opened(monkeypatch):
  environments.missing(monkeypatch)
  monkeypatch.setattr('sys.path', [])
  monkeypatch.delenv('PYTHONPATH', raising=False)
  with pytest.raises(ValueError, match='needs the library reasoning-gym'):
    _reply('reasoning_gym', 'x')
