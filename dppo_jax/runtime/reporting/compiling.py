"""Tells that a program is being compiled: a run would be silent for minutes.

JAX reports what it lowered and what it compiled to listeners. A thread looks
at the program in between, so that neither programs nor loops know of it.
"""

from collections.abc import Callable
import threading
import time

from jax import monitoring

from dppo_jax.runtime import activity
from dppo_jax.runtime.activity import format_seconds

_TRACED = '/jax/core/compile/jaxpr_trace_duration'
_LOWERED = '/jax/core/compile/jaxpr_to_mlir_module_duration'
_COMPILED = '/jax/core/compile/backend_compile_duration'
# Seconds until a program is worth a line, and between lines.
_PATIENCE_S = 2.0
_EVERY_S = 9.0  # Before `activity` would tell.
_LOOK_S = 0.5
# What the functions of a run are, by the names that JAX reports.
_NAMES = {
  'begin': 'the state of the optimizer',
  'build': 'the batch',
  'imitate': 'the step of the warm start',
  'init': 'the initial parameters',
  'sample': 'the sampler',
  'score': 'the scorer',
  'step': 'the train step',
}


class CompileWatch:
  """Programs under way, and the seconds that compiling has taken."""

  def __init__(
    self,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
  ):
    """Begins with nothing under way.

    Args:
      tell: receives lines.
      clock: seconds.
    """
    self._tell = tell
    self._clock = clock
    self._lock = threading.Lock()
    # Thread -> (program, begin, when it was told of or None).
    self._running: dict[int, tuple[str, float, float | None]] = {}
    self._traced: dict[int, float] = {}
    self._total = 0.0

  def seconds(self) -> float:
    """Seconds spent on programs that are compiled."""
    return self._total

  def on_event(
    self, event: str, duration_secs: float, **facts: str | int
  ) -> None:
    """Takes what JAX reports at the end of a part of a compilation.

    Args:
      event: its name.
      duration_secs: of that part.
      **facts: `fun_name`, the program.
    """
    thread = threading.get_ident()
    if event == _TRACED:  # The outermost function is the last one to end.
      self._traced[thread] = duration_secs
    elif event == _LOWERED:
      spent = duration_secs + self._traced.pop(thread, 0.0)
      with self._lock:
        self._total += spent
        begin = self._clock() - spent
        self._running[thread] = (
          _name(str(facts.get('fun_name', ''))),
          begin,
          None,
        )
    elif event == _COMPILED:
      with self._lock:
        self._total += duration_secs
        name, begin, told = self._running.pop(thread, ('', 0.0, None))
      if told is not None:
        self._tell(
          f'compiled {name} in {format_seconds(self._clock() - begin)}'
        )

  def look(self) -> None:
    """Tells of programs that take long, and again while they do."""
    now = self._clock()
    lines = []
    with self._lock:
      for thread, (name, begin, told) in self._running.items():
        if told is None and now - begin >= _PATIENCE_S:
          lines.append(f'compiling {name} …')
        elif told is not None and now - told >= _EVERY_S:
          lines.append(f'compiling {name} … {format_seconds(now - begin)}')
        else:
          continue
        self._running[thread] = (name, begin, now)
    for line in lines:
      self._tell(line)


def _name(program: str) -> str:
  """What a program is: 'jit(sample)' is the sampler."""
  bare = program.removeprefix('jit(').removesuffix(')')
  return _NAMES.get(bare, bare or 'a program')


_watch = CompileWatch(activity.to_console)
_started = threading.Event()


def watch() -> None:
  """Begins to tell, in this process; once."""
  if _started.is_set():
    return
  _started.set()
  monitoring.register_event_duration_secs_listener(_watch.on_event)

  def look() -> None:
    while True:
      time.sleep(_LOOK_S)
      _watch.look()

  threading.Thread(target=look, name='compiling', daemon=True).start()


def clock() -> float:
  """Seconds that stand still while a program is compiled, if it is watched."""
  return time.monotonic() - _watch.seconds()
