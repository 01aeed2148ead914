"""What means the same, decided in a process of its own and without eval."""

import json
import subprocess
import sys

import pytest

_SAME = [
  ('1/2', r'\frac12'),
  ('x+1', '1+x'),
  ('(1,2)', '(1, 2)'),
  (r'\{1,2\}', r'\{2,1\}'),
  (r'2\sqrt{3}', r'\sqrt{12}'),
  ('x=5', '5'),
  (r'\begin{pmatrix}1&2\\3&4\end{pmatrix}',) * 2,
  ('1/3', '0.333333'),
  (r'90^\circ', '90'),
  ('x^2+2x+1', '(x+1)^2'),
  ('1,000', '1000'),
  ('0.5', '.5'),
]
_DIFFERENT = [
  ('1/2', r'\frac13'),
  ('x+1', 'x-1'),
  ('[1,2)', '(1,2)'),
  ('12', '__import__("os").getpid()'),
  ('12', 'print(12)'),
  ('12', ''),
  ('12', '\ud800'),
]
_CODE = """
import builtins, json, sys
from dppo_jax.rewards import equivalence

def forbid(*_):
  print('"eval"', flush=True)
  raise SystemExit(1)

builtins.eval = forbid
pairs = json.loads(sys.stdin.read())
print(json.dumps([equivalence.equivalent(b, a) for a, b in pairs]))
"""


@pytest.fixture(scope='module')
def verdicts():
  done = subprocess.run(
    [sys.executable, '-c', _CODE],
    input=json.dumps(_SAME + _DIFFERENT),
    capture_output=True,
    text=True,
    check=False,
    env={'PYTHONPATH': ':'.join(sys.path)},
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stderr == ''
  return json.loads(done.stdout)


@pytest.mark.parametrize('row', range(len(_SAME)), ids=map(str, _SAME))
def test_what_means_the_same(verdicts, row):
  assert verdicts[row] is True


@pytest.mark.parametrize('row', range(len(_DIFFERENT)), ids=ascii)
def test_what_does_not(verdicts, row):
  assert verdicts[len(_SAME) + row] is False


def test_sympy_reads_literals_of_a_text_and_nothing_else():
  code = (
    'import sympy\n'
    'from dppo_jax.rewards import equivalence\n'
    'print(sympy.Number("12"), sympy.Number("0.5"))\n'
    'for text in ("x", "1+1", "__import__(chr(111))", "."):\n'
    '  try:\n'
    '    sympy.sympify(text)\n'
    '  except (ValueError, sympy.SympifyError):\n'
    '    print("refused")\n'
    'from sympy.parsing import sympy_parser\n'
    'try:\n'
    '  sympy_parser.eval_expr("1", {}, {})\n'
    'except ValueError:\n'
    '  print("refused")\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    check=True,
    env={'PYTHONPATH': ':'.join(sys.path)},
  )
  first, *rest = done.stdout.splitlines()
  assert [float(number) for number in first.split()] == [12.0, 0.5]
  assert rest == ['refused'] * 5
