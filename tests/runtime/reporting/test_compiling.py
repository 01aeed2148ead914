import threading

import jax
import pytest

from dppo_jax.runtime.reporting import compiling


class _Clock:
  """Seconds that a test sets."""

  now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return _Clock()


@pytest.fixture
def told():
  return []


@pytest.fixture
def watch(clock, told):
  return compiling.CompileWatch(told.append, clock)


def _lower(watch, name, seconds=0.5):
  watch.on_event(compiling._TRACED, 0.25, fun_name=name)
  watch.on_event(compiling._LOWERED, seconds, fun_name=f'jit({name})')


def test_a_long_compilation_is_told_of_until_it_ends(watch, clock, told):
  _lower(watch, 'sample')
  watch.look()
  assert told == []
  clock.now += 2
  watch.look()
  watch.look()
  assert told == ['compiling the sampler …']
  clock.now += 10
  watch.look()
  assert told[1:] == ['compiling the sampler … 13 s']
  clock.now += 60
  watch.on_event(compiling._COMPILED, 72.0, fun_name='jit(sample)')
  watch.look()
  assert told[2:] == ['compiled the sampler in 1 min 13 s']


def test_a_short_one_is_not(watch, clock, told):
  _lower(watch, 'my_own')
  clock.now += 1
  watch.on_event(compiling._COMPILED, 1.0, fun_name='jit(my_own)')
  clock.now += 60
  watch.look()
  assert told == []
  _lower(watch, 'my_own')
  clock.now += 5
  watch.look()
  assert told == ['compiling my_own …']


def test_the_steps_of_both_phases_differ(watch, clock, told):
  for name in ('imitate', 'step'):
    _lower(watch, name)
    clock.now += 5
    watch.look()
    watch.on_event(compiling._COMPILED, 5.0)
  assert told[::2] == [
    'compiling the step of the warm start …',
    'compiling the train step …',
  ]


def test_seconds_are_those_of_every_part(watch):
  _lower(watch, 'step', 1.0)
  watch.on_event(compiling._COMPILED, 3.0)
  watch.on_event('/jax/something/else', 7.0)
  assert watch.seconds() == pytest.approx(4.25)


def test_threads_compile_beside_each_other(watch, clock, told):
  other = threading.Thread(target=_lower, args=(watch, 'score'))
  other.start()
  other.join()
  _lower(watch, 'step')
  watch.on_event(compiling._COMPILED, 1.0)
  clock.now += 3
  watch.look()
  assert told == ['compiling the scorer …']


@pytest.fixture
def listening(watch):
  compiling.monitoring.register_event_duration_secs_listener(watch.on_event)
  yield watch
  compiling.monitoring.unregister_event_duration_listener(watch.on_event)


def test_the_clock_stands_still_meanwhile(monkeypatch, listening):
  monkeypatch.setattr(compiling, '_watch', listening)
  monkeypatch.setattr(compiling.time, 'monotonic', lambda: 70.0)
  assert compiling.clock() == 70.0
  compiling.monitoring.record_event_duration_secs(compiling._COMPILED, 50.0)
  assert compiling.clock() == 20.0


def test_the_names_of_events_are_those_of_jax(listening):
  jax.jit(lambda x: x * 3 + 1).lower(1.0).compile()
  assert listening.seconds() > 0
  assert listening._running == {}
