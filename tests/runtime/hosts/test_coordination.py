"""One process alone, and two whose service is a dict."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from dppo_jax.runtime.hosts import coordination


class _Service:
  """The key-value store of a job, and a barrier nobody else comes to."""

  def __init__(self):
    self.values = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    if key in self.values and not allow_overwrite:
      raise jax.errors.JaxRuntimeError(f'ALREADY_EXISTS: {key}')
    self.values[key] = value

  def key_value_try_get(self, key):
    if key not in self.values:
      raise jax.errors.JaxRuntimeError(f'NOT_FOUND: {key}')
    return self.values[key]

  def blocking_key_value_get(self, key, timeout_ms):
    return self.key_value_try_get(key)

  def key_value_dir_get(self, folder):
    return [
      (k, v) for k, v in self.values.items() if k.startswith(f'{folder}/')
    ]

  def wait_at_barrier(self, key, timeout_ms):
    raise jax.errors.JaxRuntimeError(f'DEADLINE_EXCEEDED: {key}')


@pytest.fixture
def service(monkeypatch):
  """As process 0 of two sees them."""
  made = _Service()
  monkeypatch.setattr(
    coordination._jax_distributed.global_state, 'client', made
  )
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(coordination, '_limit_s', 3)
  monkeypatch.setattr(coordination, '_leaving', coordination.threading.Event())
  monkeypatch.setattr(coordination, '_counter', iter(range(9)))
  made.values |= {'dppo_jax/host/0': 'a', 'dppo_jax/host/1': 'b'}
  return made


def test_alone_there_is_nobody_to_ask():
  assert coordination.is_single_process()
  assert coordination.is_primary()
  coordination.barrier('start')
  coordination.compare({'a': 1}, lambda mine, theirs: ['never'], 'config')
  assert coordination.from_primary(lambda: (1, None), 'a pair') == (1, None)
  assert coordination.first_problem('mine') == 'mine'
  assert coordination.gather(b'mine') == [b'mine']
  assert coordination.largest(3) == 3
  with pytest.raises(FileNotFoundError):
    coordination.from_primary(lambda: open('/no/such/file'), 'a file')


def test_a_barrier_names_who_is_missing(service):
  with pytest.raises(
    ValueError, match=r"process 1 \(b\) did not come to 'start' within 3 s"
  ):
    coordination.barrier('start')


def test_the_first_process_answers_for_all(service):
  assert coordination.from_primary(lambda: {'x': [1]}, 'x') == {'x': [1]}
  assert service.values['dppo_jax/first/0'] == '{"value": {"x": [1]}}'


def test_an_error_of_the_first_process_is_that_of_all(service, monkeypatch):
  def refuse():
    raise OSError('no room')

  with pytest.raises(ValueError, match='no room'):
    coordination.from_primary(refuse, 'x')
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  monkeypatch.setattr(coordination, '_counter', iter(range(9)))
  with pytest.raises(ValueError, match='no room'):
    coordination.from_primary(lambda: 'not called', 'x')


def test_a_silent_first_process_is_named(service, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with pytest.raises(
    ValueError, match=r"process 0 \(a\) did not come to 'x' within 3 s"
  ):
    coordination.from_primary(lambda: 'not called', 'x')


def test_facts_that_differ_name_the_process(service):
  def differences(mine, theirs):
    return [f'{mine} -> {theirs}'] if mine != theirs else []

  service.values['dppo_jax/facts/0/1'] = '5'
  with pytest.raises(ValueError, match=r'process 1 \(b\) differs') as error:
    coordination.compare(4, differences, 'config')
  assert '4 -> 5' in str(error.value)
  service.values['dppo_jax/facts/2/1'] = '4'
  coordination.compare(4, differences, 'config')


def test_the_first_failure_counts(service):
  assert coordination.read_failure() is None
  coordination.report_failure('no room')
  coordination.report_failure('the consequence')
  assert coordination.read_failure() == 'process 0 (a) failed: no room'
  assert coordination.leaving()
  assert coordination.find_cause() == 'process 0 (a) failed: no room'


def test_nobody_else_comes_to_the_end(service):
  coordination.await_end()
  assert service.values['dppo_jax/barrier/the end/0'] == 'here'


def test_who_is_gone_is_found(service, monkeypatch):
  monkeypatch.setattr(coordination, '_GONE_S', 0.2)
  assert 'process 1 (b) did not come' in coordination.find_cause()


def test_a_silent_process_is_noticed(service):
  times = iter([0.0, 2.0, 3.0, 5.0, 6.5])
  pulse = coordination.Pulse(3.0, lambda: next(times))
  assert [pulse.look(), pulse.look()] == ['', '']
  assert service.values['dppo_jax/pulse/0'] == '2'
  service.key_value_set('dppo_jax/pulse/1', '1')
  assert [pulse.look(), pulse.look()] == ['', '']
  assert 'process 1 (b) has been silent for 3 s' in pulse.look()


def test_leaves_are_awaited(service, monkeypatch):
  """By a clock of its own: the time moves when it sleeps, and only then."""
  slept = []
  clock = SimpleNamespace(
    monotonic=lambda: sum(slept), sleep=lambda seconds: slept.append(seconds)
  )
  monkeypatch.setattr(coordination, 'time', clock)
  coordination.take_leave()
  coordination.await_leaves(5.0)
  assert 5.0 <= sum(slept) < 5.2
  slept.clear()
  service.key_value_set('dppo_jax/left/1', 'left')
  coordination.await_leaves(5.0)
  assert slept == []


def test_bytes_are_gathered(monkeypatch):
  def of_two(values):
    if np.ndim(values) == 0:
      return np.array([values, 70])
    other = np.zeros_like(values)
    other[:70] = 7
    return np.stack([values, other])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(coordination.multihost_utils, 'process_allgather', of_two)
  assert coordination.gather(b'mine') == [b'mine', b'\x07' * 70]
  assert coordination.largest(3) == 70
