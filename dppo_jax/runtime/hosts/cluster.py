"""Start-up and end of a job of several processes.

JAX's own runtime joins them and watches their heartbeats. What is added here
is who is told what: a process that fails leaves its error with the others, so
that each of them ends with the first cause instead of waiting.
"""

import atexit
from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import re
import socket
import sys
import threading
import traceback

from absl import flags
import jax

from dppo_jax.runtime.hosts import coordination

# Exit code of a process that ends because another one failed.
PEER_FAILED = 75
_POLL_S = 0.5
_LINGER_S = 3.0
_LATER_S = 30  # Seconds by which the limits of JAX's service are wider.
_JOIN = (
  'Start all processes, with the same coordinator, and see that its port is'
  ' free and reachable; --num_processes=1 --process_id=0 runs on this machine'
  ' alone.'
)

_COORDINATOR = 'JAX_COORDINATOR_ADDRESS'
_NUM_PROCESSES = 'JAX_NUM_PROCESSES'
_PROCESS_ID = 'JAX_PROCESS_ID'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
  """How this process was started.

  Attributes:
    coordinator: HOST:PORT of process 0; '' to find out.
    num_processes: of the job; -1 to find out.
    process_id: of this one, from 0; -1 to find out.
    time_limit_s: seconds after which a process that is silent is given up.
  """

  coordinator: str
  num_processes: int
  process_id: int
  time_limit_s: int


def define_flags() -> Callable[[], Launch]:
  """Defines the flags of a command that several processes may run.

  Returns:
    Reads them; what is not given comes from the environment.
  """
  coordinator = flags.DEFINE_string(
    'coordinator', None, f'HOST:PORT of process 0; or {_COORDINATOR}.'
  )
  num_processes = flags.DEFINE_integer(
    'num_processes', None, f'Of the job; or {_NUM_PROCESSES}.'
  )
  process_id = flags.DEFINE_integer(
    'process_id', None, f'Of this one, from 0; or {_PROCESS_ID}.'
  )
  time_limit_s = flags.DEFINE_integer(
    'host_time_limit_s', 300, 'Seconds until a silent process is given up.'
  )

  def read() -> Launch:
    return make_launch(
      coordinator.value,
      num_processes.value,
      process_id.value,
      time_limit_s.value,
      os.environ,
    )

  return read


def make_launch(
  coordinator: str | None,
  num_processes: int | None,
  process_id: int | None,
  time_limit_s: int,
  environment: Mapping[str, str],
) -> Launch:
  """Checks flags, and fills in what the environment says.

  Raises:
    ValueError: they contradict themselves, or are not complete.
  """
  address = coordinator or environment.get(_COORDINATOR, '')
  count = _number('num_processes', num_processes, _NUM_PROCESSES, environment)
  index = _number('process_id', process_id, _PROCESS_ID, environment)
  if time_limit_s < 1:
    raise ValueError(f'--host_time_limit_s: got {time_limit_s}; at least 1.')
  if (count >= 0) != (index >= 0) or (count > 1 and not address):
    raise ValueError(
      f'--coordinator={address!r}, --num_processes={count},'
      f' --process_id={index}: give all three, or none where a cluster is'
      ' detected (-1 is not given).'
    )
  if count >= 0 and not 0 <= index < count:
    raise ValueError(
      f'--process_id: got {index} of --num_processes={count}; ids are'
      f' 0 to num_processes - 1.'
    )
  if address and ':' not in address:
    raise ValueError(
      f'--coordinator: got {address!r}; HOST:PORT, 10.0.0.2:8476 say.'
    )
  return Launch(
    coordinator=address,
    num_processes=count,
    process_id=index,
    time_limit_s=time_limit_s,
  )


def _number(
  flag: str, value: int | None, name: str, environment: Mapping[str, str]
) -> int:
  if value is None:
    text = environment.get(name)
    if text is None:
      return -1
    if not re.fullmatch('[0-9]{1,9}', text):
      raise ValueError(f'{name}: got {text!r}; a number, or set --{flag}.')
    return int(text)
  if value < 0:
    raise ValueError(f'--{flag}: got {value}; 0 or more.')
  return value


def _count(environment: Mapping[str, str], name: str) -> int:
  """A number that a scheduler has set; -1 where it has not.

  Raises:
    ValueError: it is no number.
  """
  text = environment.get(name, '').strip()
  if not text:
    return -1
  if not (text.isascii() and text.isdecimal() and len(text) < 10):
    raise ValueError(
      f'{name}: got {text!r}; a number of processes. Unset it, or give'
      ' --num_processes=1 --process_id=0 to run alone.'
    )
  return int(text)


def detect(environment: Mapping[str, str], devices: pathlib.Path) -> str:
  """Names the cluster this process was started on, or ''.

  JAX would ask a metadata server wherever libtpu is installed; a machine that
  has no TPU should not wait for one.

  Args:
    environment: of the process.
    devices: /dev.
  """
  # Of the step, not of the job: a shell in a larger allocation is alone.
  tasks = _count(environment, 'SLURM_STEP_NUM_TASKS')
  if tasks < 0:
    tasks = _count(environment, 'SLURM_NTASKS')
  if tasks > 1 and (
    {'SLURM_JOB_ID', 'SLURM_PROCID', 'SLURM_STEP_NODELIST'} <= {*environment}
  ):
    return 'SLURM'
  if _count(environment, 'OMPI_COMM_WORLD_SIZE') > 1:
    return 'Open MPI'
  platforms = environment.get('JAX_PLATFORMS', '')
  if (not platforms or 'tpu' in platforms) and importlib.util.find_spec(
    'libtpu'
  ):
    if {'TPU_WORKER_HOSTNAMES', 'TPU_PROCESS_ADDRESSES'} & {*environment}:
      return 'TPU slice on GKE'
    chips = [*devices.glob('accel[0-9]*'), *devices.glob('vfio/[0-9]*')]
    if chips and 'TPU_SKIP_MDS_QUERY' not in environment:
      return 'TPU slice'
  if (
    'JOB_COMPLETION_INDEX' in environment
    and 'KUBERNETES_SERVICE_HOST' in environment
    and importlib.util.find_spec('kubernetes')
  ):
    return 'Kubernetes'
  return ''


def start(launch: Launch) -> None:
  """Joins the job; does nothing for a single process.

  Raises:
    ValueError: the processes did not find each other in time.
  """
  given = launch.num_processes > 1
  if not given and (
    launch.num_processes == 1 or not detect(os.environ, pathlib.Path('/dev'))
  ):
    return
  known = {
    'coordinator_address': launch.coordinator or None,
    'num_processes': launch.num_processes if given else None,
    'process_id': launch.process_id if given else None,
  }
  place = launch.coordinator or 'its cluster'
  never_came = (
    f'--coordinator: process {launch.process_id} could not join the job of'
    f' {launch.num_processes} at {place} within {launch.time_limit_s} s'
  )
  try:
    with _given_up_after(launch.time_limit_s, f'{never_came}. {_JOIN}'):
      jax.distributed.initialize(
        **known,
        # Later than we: it ends the process with a report of its own.
        initialization_timeout=launch.time_limit_s + _LATER_S,
        # Should every thread of Python hang; else `_watch` is first. A beat
        # is sent every half of it, and it counts from the last one: who dies
        # before the next beat is missed after a half already, and all abort.
        heartbeat_timeout_seconds=2 * (launch.time_limit_s + _LATER_S),
        shutdown_timeout_seconds=launch.time_limit_s,
      )
  except (RuntimeError, ValueError) as error:
    raise ValueError(f'{never_came} ({_first_line(error)}). {_JOIN}') from error
  if jax.process_count() == 1:
    return
  coordination.introduce(socket.gethostname(), launch.time_limit_s)
  coordination.barrier('start')
  over = threading.Event()
  watch = threading.Thread(
    target=_watch,
    args=(coordination.Pulse(launch.time_limit_s), over),
    name='failures',
    daemon=True,
  )
  watch.start()
  atexit.register(_finish, watch, over)


@contextlib.contextmanager
def _given_up_after(time_limit_s: float, message: str) -> Iterator[None]:
  """Ends this process where what is within does not return in time."""

  def give_up() -> None:
    print(f'error: {message}', file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(PEER_FAILED)

  timer = threading.Timer(time_limit_s, give_up)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def fail(code: int, error: BaseException | str) -> int:
  """Ends a process that failed, and lets the others know why.

  A lone process goes on and returns `code`. One of several leaves at once:
  an orderly end would wait for the others, and they wait for it.
  """
  if _is_one_of_several():
    coordination.report_failure(str(error))
    _leave(code)
  return code


def explain(error: Exception) -> int:
  """Ends a process of several that met an error nobody foresaw.

  If another process failed first, or is gone, that is the cause and is named.

  Raises:
    Exception: `error`, in a lone process.
  """
  if not _is_one_of_several():
    raise error
  blame_peer(error)
  traceback.print_exception(error)
  return fail(1, f'{type(error).__name__}: {_first_line(error)}')


def blame_peer(error: Exception) -> None:
  """Ends a process of several whose error is that of a collective operation.

  Returns where that is not so, or no other process has failed or is gone.

  Args:
    error: of the runtime, or raised from one: a save that needs all processes
      fails with them.
  """
  seen = error.__cause__ or error
  if not (
    _is_one_of_several() and isinstance(seen, jax.errors.JaxRuntimeError)
  ):
    return
  cause = coordination.find_cause()
  if cause:
    print(f'error: {cause}', file=sys.stderr)
    print(f'  Seen here as: {_first_line(error)}', file=sys.stderr)
    coordination.publish_failure(cause)
    _leave(PEER_FAILED)


def _is_one_of_several() -> bool:
  return jax.distributed.is_initialized() and jax.process_count() > 1


def _finish(watch: threading.Thread, over: threading.Event) -> None:
  """Ends the watch before the interpreter ends.

  A thread that asks the coordination service while the interpreter is torn
  down is unwound within C++, which aborts the process. Until every process
  has come this far the watch goes on: one of them may fail yet.
  """
  coordination.await_end()
  over.set()
  watch.join()


def _watch(pulse: coordination.Pulse, over: threading.Event) -> None:
  """Ends this process once another one failed or fell silent; in a thread."""
  while not over.wait(_POLL_S):
    silent = pulse.look()
    cause = coordination.read_failure() or silent
    if cause and not coordination.leaving():
      coordination.publish_failure(cause)
      print(
        f'error: {cause}\n  Process {jax.process_index()} ends because of it.',
        file=sys.stderr,
      )
      _leave(PEER_FAILED)


def _leave(code: int) -> None:
  coordination.take_leave()
  if jax.process_index() == 0:
    # The others read the cause from this process.
    coordination.await_leaves(_LINGER_S)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _first_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines()
  return lines[0][:300] if lines else type(error).__name__
