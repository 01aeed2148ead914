"""What the tests notice: one-line mutations of the code, drawn by a seed.

    python -m tests.support.mutations --out=mutations.json
    python -m tests.support.mutations --out=mutations.json --root=OTHER_TREE

The first draws mutations and runs, for each, the tests that mirror its module,
and if they notice nothing those of its folder. The second repeats the mutations
of the file on another tree, to compare two states of the tests, and first tries
the test that noticed one before. A mutation changes one operator, number, truth
value or reduction on one line. `killed` tells the test that failed; it is empty
where none did.
"""

import argparse
import ast
import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings

ROOT = pathlib.Path(__file__).parents[2]
AREAS = (
  'ops',
  'lm_head',
  'learner',
  'sampling',
  'rewards',
  'runtime/storage',
)
_COPIED = ('dppo_jax', 'configs', 'experiments', 'notebooks', 'tests', 'docs')
# A mutated loop may have no end: CPU-seconds, and seconds of the clock.
_CPU_S, _WALL_S = 300, 1800
# Of pytest's exit code 4: there is no such test, or file of tests.
_NO_SUCH_TEST = f'exit status {4 << 8}'
_OPERATORS = {
  ast.Lt: ('<', '<='),
  ast.LtE: ('<=', '<'),
  ast.Gt: ('>', '>='),
  ast.GtE: ('>=', '>'),
  ast.Eq: ('==', '!='),
  ast.NotEq: ('!=', '=='),
  ast.Add: ('+', '-'),
  ast.Sub: ('-', '+'),
  ast.Mult: ('*', '/'),
  ast.Div: ('/', '*'),
  ast.And: ('and', 'or'),
  ast.Or: ('or', 'and'),
  ast.BitAnd: ('&', '|'),
  ast.BitOr: ('|', '&'),
}
_NAMES = {
  'maximum': 'minimum',
  'minimum': 'maximum',
  'any': 'all',
  'all': 'any',
  'sum': 'max',
  'max': 'min',
  'min': 'max',
  'argmax': 'argmin',
}


def _between(left, right, operator):
  """The edit of an operator between two expressions, if on one line."""
  if left.end_lineno == right.lineno and operator in _OPERATORS:
    old, new = _OPERATORS[operator]
    yield left.end_lineno, left.end_col_offset, right.col_offset, old, new


def _edits(node):
  """Edits (line, first byte, end byte, old text, new text) of one node."""
  match node:
    case ast.Compare(left=left, ops=[op], comparators=[right]):
      yield from _between(left, right, type(op))
    case ast.BinOp(left=left, op=op, right=right):
      yield from _between(left, right, type(op))
    case ast.BoolOp(op=op, values=[left, right, *_]):
      yield from _between(left, right, type(op))
    case ast.Constant(value=bool() | int() | float() as value):
      new = not value if isinstance(value, bool) else value + 1
      end = node.end_col_offset
      yield node.lineno, node.col_offset, end, None, repr(new)
    case ast.UnaryOp(op=ast.Not() | ast.USub() as op, operand=operand):
      if node.lineno == operand.lineno:
        old = '-' if isinstance(op, ast.USub) else 'not '
        yield node.lineno, node.col_offset, operand.col_offset, old, ''
    case ast.Attribute(value=value, attr=name) if name in _NAMES:
      if value.end_lineno == node.end_lineno:
        start, end = value.end_col_offset, node.end_col_offset
        yield node.end_lineno, start, end, name, _NAMES[name]


def _is_message(node):
  """Whether a node only names, types, checks or explains."""
  if isinstance(node, ast.Call):
    return ast.unparse(node.func).startswith('chex.assert_')
  return isinstance(
    node, ast.Raise | ast.JoinedStr | ast.arg | ast.Import | ast.ImportFrom
  )


def candidates(source):
  """All mutations of a module: (line, before, after), lines without their end.

  Args:
    source: text of the module.
  """
  lines = source.splitlines()
  stack, found = [ast.parse(source)], []
  while stack:
    node = stack.pop()
    if _is_message(node):
      continue
    children = [
      child
      for field, value in ast.iter_fields(node)
      if field not in ('annotation', 'returns', 'decorator_list')
      for child in (value if isinstance(value, list) else [value])
      if isinstance(child, ast.AST)
    ]
    stack += children
    if any(_is_text(child) for child in children):
      continue  # A + of strings.
    for number, start, end, old, new in _edits(node):
      line = lines[number - 1].encode()
      middle = line[start:end].decode()
      middle = new if old is None else middle.replace(old, new, 1)
      after = (line[:start] + middle.encode() + line[end:]).decode()
      if after != lines[number - 1]:
        found.append((number, lines[number - 1], after))
  return sorted(set(found))


def _is_text(node):
  return isinstance(node, ast.JoinedStr) or (
    isinstance(node, ast.Constant) and isinstance(node.value, str)
  )


def draw(num_per_area, seed, root=ROOT):
  """Mutations, as many of each area: dicts of module, line, before, after."""
  rng, drawn = random.Random(seed), []
  for area in AREAS:
    all_of_area = [
      dict(module=str(path.relative_to(root)), line=n, before=old, after=new)
      for path in sorted((root / 'dppo_jax' / area).rglob('*.py'))
      for n, old, new in candidates(path.read_text())
    ]
    drawn += rng.sample(all_of_area, num_per_area)
  return drawn


def mirrored_test(module):
  """Path of its tests: `dppo_jax/a/_b.py` -> `tests/a/test_b.py`."""
  path = pathlib.PurePath(module)
  name = f'test_{path.stem.strip("_")}.py'
  return str(pathlib.PurePath('tests', *path.parts[1:-1], name))


def tests_of(mutation, root):
  """What is run in turn, until a test fails: paths, and a test known to.

  Tests of a module may be in parts: test_loss.py, test_loss_turns.py.
  """
  known = mutation.get('killed', '')
  mirrored = pathlib.PurePath(mirrored_test(mutation['module']))
  first = [known] if '::' in known else []
  parts = sorted((root / mirrored.parent).glob(f'{mirrored.stem}_*.py'))
  names = [str(part.relative_to(root)) for part in parts]
  return [*first, str(mirrored), *names, str(mirrored.parent)]


def apply(mutation, root):
  """Writes a mutation into a tree; the text of the module before.

  Raises:
    ValueError: that line of the module is another one by now.
  """
  path = root / mutation['module']
  source = path.read_text()
  lines = source.splitlines()
  at = mutation['line'] - 1
  if lines.count(mutation['before']) == 1:
    at = lines.index(mutation['before'])  # It may have moved.
  if at >= len(lines) or lines[at] != mutation['before']:
    raise ValueError(f'{path}: no line {mutation["before"]!r}; draw anew')
  lines[at] = mutation['after']
  path.write_text('\n'.join(lines) + '\n')
  return source


def _in_child(root, test):
  """Runs the tests of one module until one fails; never returns."""
  import pytest

  class First:
    def pytest_runtest_logreport(self, report):
      if report.failed:
        (root / 'failed').write_text(report.nodeid)

    def pytest_collectreport(self, report):
      if report.failed:
        (root / 'failed').write_text(f'{report.nodeid} (import)')

  os.setsid()
  os.chdir(root)
  sys.path.insert(0, str(root))
  sys.dont_write_bytecode = True
  os.environ['PYTHONDONTWRITEBYTECODE'] = '1'
  resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
  with (root / 'log').open('w') as log:
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
  options = ('-x', '-p', 'no:xdist', '-p', 'no:cacheprovider')
  status = 99
  try:
    status = int(pytest.main([*options, test], plugins=[First()]))
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stderr.flush()
    os._exit(status)  # Whatever happens, the parent goes on, not this.


def _run_one(root, test):
  """(what failed, '' if nothing did; CPU-seconds) of the tests of a module."""
  failed = root / 'failed'
  failed.unlink(missing_ok=True)
  deadline, pid = time.monotonic() + _WALL_S, os.fork()
  if not pid:
    _in_child(root, test)
  ended = 0
  while not ended:
    ended, status, usage = os.wait4(pid, os.WNOHANG)
    if not ended and time.monotonic() > deadline:
      os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
  with contextlib.suppress(ProcessLookupError):
    os.killpg(pid, signal.SIGKILL)  # Workers that a mutant left behind.
  text = failed.read_text() if failed.exists() else ''
  if not text and status:
    text = f'exit status {status}'
  return text, round(usage.ru_utime + usage.ru_stime, 1)


def run(mutations, root, report=print):
  """The mutations, each with `killed` ('' where it survived) and `cpu_s`."""
  # Once, not for each mutation; a fork before a backend exists is safe.
  import chex  # noqa: F401
  import flax.linen  # noqa: F401
  import jax.numpy  # noqa: F401
  import optax  # noqa: F401
  import orbax.checkpoint  # noqa: F401

  warnings.simplefilter('ignore')
  results = []
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder)
    for name in _COPIED:
      shutil.copytree(
        root / name,
        copy / name,
        symlinks=True,
        ignore=shutil.ignore_patterns('__pycache__'),
      )
    shutil.copy(root / 'pyproject.toml', copy)
    for mutation in mutations:
      before = apply(mutation, copy)
      spent = 0.0
      for test in tests_of(mutation, copy):
        killed, cpu_s = _run_one(copy, test)
        spent = round(spent + cpu_s, 1)
        # Of another tree, the test or the whole file may have another name.
        killed = '' if killed == _NO_SUCH_TEST else killed
        if killed:
          break
      (copy / mutation['module']).write_text(before)
      results.append({**mutation, 'killed': killed, 'cpu_s': spent})
      report(f'{spent:6.1f} s  {killed or "SURVIVED"}  {mutation["after"]}')
  return results


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--root', type=pathlib.Path, default=ROOT)
  parser.add_argument('--per_area', type=int, default=11)
  parser.add_argument('--seed', type=int, default=0)
  flags = parser.parse_args()
  if flags.out.exists():
    mutations = json.loads(flags.out.read_text())
  else:
    mutations = draw(flags.per_area, flags.seed, flags.root)
  flags.out.parent.mkdir(parents=True, exist_ok=True)
  results = run(
    mutations, flags.root.resolve(), lambda text: print(text, flush=True)
  )
  flags.out.write_text(json.dumps(results, indent=1) + '\n')
  num_killed = sum(bool(result['killed']) for result in results)
  cpu_s = sum(result['cpu_s'] for result in results)
  print(f'{num_killed} of {len(results)} killed in {cpu_s:.0f} CPU-s')


if __name__ == '__main__':
  main()
