"""Which tests are slow: `make test-fast` leaves them out.

    make tests PYTEST_ARGS=--cpu-record=runs/cpu.json
    python -m tests.support.slow runs/cpu.json

The second writes the list, tests/slow_tests.txt, from what the first measured.
A list, and not only marks in the files: what is slow is measured, and changes
with every program that tests come to share.
"""

import collections
import json
import pathlib
import sys

LIST = pathlib.Path(__file__).parents[1] / 'slow_tests.txt'
# CPU-seconds of a test with all its parameters: a hundred quick cases are as
# slow as a single slow one.
LIMIT_S = 0.15
_HEAD = f"""\
# Tests of more than {LIMIT_S:g} CPU-seconds, all parameters together.
# Written by python -m tests.support.slow.
"""


def function(nodeid):
  """A test without its parameters: `tests/a/test_b.py::test_c`."""
  return nodeid.partition('[')[0]


def slow(seconds):
  """Slow tests and their CPU-seconds, of a dict of node id to CPU-seconds."""
  totals = collections.Counter()
  for nodeid, each in seconds.items():
    totals[function(nodeid)] += each
  return {test: s for test, s in sorted(totals.items()) if s > LIMIT_S}


def read(path=LIST):
  """The list: a dict of test to CPU-seconds."""
  found = {}
  for line in path.read_text().splitlines():
    if not line.startswith('#'):
      seconds, test = line.split()
      found[test] = float(seconds)
  return found


def write(tests, path=LIST):
  """Writes the list."""
  rows = ''.join(f'{s:.1f} {test}\n' for test, s in sorted(tests.items()))
  path.write_text(_HEAD + rows)


def main():
  seconds = {}
  for record in sys.argv[1:]:
    seconds.update(json.loads(pathlib.Path(record).read_text()))
  tests = slow(seconds)
  write(tests)
  rest = sum(
    s for nodeid, s in seconds.items() if function(nodeid) not in tests
  )
  print(f'{len(tests)} slow tests; all others take {rest:.0f} CPU-seconds')


if __name__ == '__main__':
  main()
