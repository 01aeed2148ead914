"""A pytest plugin that tells where the CPU time of a run goes.

CPU time, of a process with its threads and of the children it waited for,
hardly moves on a busy machine; wall time does. `tests/conftest.py` registers
the plugin. A run ends with its slowest tests and the share of each folder of
`tests/`; with `--cpu-budget=SECONDS` a run that took more fails.
"""

import collections
import json
import pathlib
import resource

import pytest

from tests.support import fork_server

_SLOWEST = 15
_START_UP = 'imports, collection'


def cpu_seconds():
  """CPU-seconds of this process, its forks, and children it waited for."""
  return fork_server.cpu_seconds() + sum(
    usage.ru_utime + usage.ru_stime
    for usage in map(
      resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
  )


def part(nodeid):
  """Folder below `tests/` that a test stands in, or the name of its file."""
  return nodeid.split('::')[0].removeprefix('tests/').split('/')[0]


def shares(tests, total):
  """Rows (part, CPU-seconds, share of all), the largest first.

  Args:
    tests: dict of nodeid to CPU-seconds.
    total: CPU-seconds of the whole run; what belongs to no test has a row.
  """
  parts = collections.Counter()
  for nodeid, seconds in tests.items():
    parts[part(nodeid)] += seconds
  parts[_START_UP] = max(total - sum(tests.values()), 0.0)
  return [
    (name, seconds, seconds / total) for name, seconds in parts.most_common()
  ]


def lines(tests, total, budget):
  """Lines of the report: slowest tests, shares, the sum and its budget."""
  slowest = sorted(tests.items(), key=lambda item: -item[1])[:_SLOWEST]
  result = [f'{seconds:7.1f} s  {name}' for name, seconds in slowest]
  result += [
    f'{seconds:7.1f} s {share:4.0%}  {name}'
    for name, seconds, share in shares(tests, total)
  ]
  of = f' of {budget:g} (--cpu-budget)' if budget else ''
  return [*result, f'{total:7.1f} CPU-seconds{of}']


class CpuTime:
  """Measures where tests run, and adds up where the run is reported.

  With workers of xdist these are different processes: a worker's figures
  travel as an attribute of its reports, and in its output.
  """

  def __init__(self, config):
    self._config = config
    self._budget = config.getoption('cpu_budget')
    self._record = config.getoption('cpu_record')
    self._since = cpu_seconds()
    self._tests = collections.Counter()
    self._workers = 0.0
    self._total = 0.0

  @pytest.hookimpl(wrapper=True)
  def pytest_runtest_protocol(self):
    self._since = cpu_seconds()
    return (yield)

  @pytest.hookimpl(wrapper=True)
  def pytest_runtest_makereport(self):
    report = yield
    now = cpu_seconds()
    report.cpu_s, self._since = now - self._since, now
    return report

  def pytest_runtest_logreport(self, report):
    # Shared fixtures count for the test that happens to be the first.
    self._tests[report.nodeid] += getattr(report, 'cpu_s', 0.0)

  @pytest.hookimpl(optionalhook=True)
  def pytest_testnodedown(self, node):
    self._workers += getattr(node, 'workeroutput', {}).get('cpu_s', 0.0)

  @pytest.hookimpl(wrapper=True, trylast=True)  # Within the summary's.
  def pytest_sessionfinish(self, session):
    fork_server.stop()  # Its last moments count, too.
    if hasattr(self._config, 'workeroutput'):
      self._config.workeroutput['cpu_s'] = cpu_seconds()
      return (yield)
    result = yield  # Workers end in here.
    # Children of xdist are workers too: they are counted once, by themselves.
    own = resource.getrusage(resource.RUSAGE_SELF)
    self._total = (
      own.ru_utime + own.ru_stime + self._workers
      if self._workers
      else cpu_seconds()
    )
    if self.over_budget and session.exitstatus == pytest.ExitCode.OK:
      session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result

  @property
  def over_budget(self):
    return bool(self._budget) and self._total > self._budget

  def pytest_terminal_summary(self, terminalreporter):
    if self._record:
      seconds = {name: round(s, 3) for name, s in sorted(self._tests.items())}
      self._record.parent.mkdir(parents=True, exist_ok=True)
      self._record.write_text(json.dumps(seconds, indent=0) + '\n')
    if self._budget is None:
      return
    terminalreporter.section('CPU time')
    for line in lines(self._tests, self._total, self._budget):
      terminalreporter.write_line(line)
    if self.over_budget:
      terminalreporter.write_line(
        'Failed: more CPU time than the budget of the Makefile. Make the'
        ' slowest tests faster: share programs and runs, take smaller sizes.',
        red=True,
      )


def pytest_addoption(parser):
  parser.addoption(
    '--cpu-budget',
    type=float,
    help='Report CPU time; fail above so many CPU-seconds (0: never).',
  )
  parser.addoption(
    '--cpu-record',
    type=pathlib.Path,
    help='Write the CPU-seconds of each test to this file (JSON).',
  )


def pytest_configure(config):
  config.pluginmanager.register(CpuTime(config), 'cpu_time')
