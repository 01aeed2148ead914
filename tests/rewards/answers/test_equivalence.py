"""What means the same, decided in a process of its own and without eval."""

import json
import subprocess
import sys

import pytest

_SAME = [
  ('1/2', r'\frac12'),
  ('x+1', '1+x'),
  (r'2\sqrt{3}', r'\sqrt{12}'),
  (r'\begin{pmatrix}1&2\\3&4\end{pmatrix}',) * 2,
  (r'90^\circ', '90'),
  (r'\sin 30^\circ', '0.5'),
  ('(1+i)^2', '2i'),
  ('0', r'\sin \pi'),
  ('I', 'I'),
  (r'\frac{2024!}{2}', r'\frac{1}{2}\cdot 2024!'),
  ('x^2+2x+1', '(x+1)^2'),
  ('0.5', '.5'),
]
_DIFFERENT = [
  ('1/2', r'\frac13'),
  ('x+1', 'x-1'),
  ('1/3', '0.333333'),
  (r'\pi', '3.14159265358979'),
  (r'2^{-99}', '2^{-98}'),
  ('0', '10^{-100}'),
  ('10^{-100}', '0'),
  ('2t', '2'),
  ('x', 'X'),
  ('I', 'i'),
  (r'\sqrt{x^2}', 'x'),
  ('12', '12)'),
  ('12', '12 \\foo'),
  ('7', '3 4 +'),
  ('12', '__import__("os").getpid()'),
  ('12', 'print(12)'),
  ('12', ''),
  ('12', '\ud800'),
]
_CODE = """
import builtins, json, sys
from dppo_jax.rewards.answers import equivalence

def forbid(*_):
  print('"eval"', flush=True)
  raise SystemExit(1)

builtins.eval = forbid
pairs = json.loads(sys.stdin.read())
print(json.dumps([equivalence.equivalent(b, a) for a, b in pairs]))
for answer, reference, ordered in (
  (('2x', '6'), ('x', '3'), True),
  (('2x', '6'), ('x', '3'), False),
  (('-x', '-3'), ('x', '3'), True),
  (('x^2', '-8'), ('x^2', '-5'), False),
  (('0', '0'), ('x', '3'), False),
  (('0', '1'), ('1', '2'), False),
  (('I', '6'), ('I', '9'), False),
  (('x', 'x'), ('x', '3'), False),
):
  print(json.dumps(equivalence.same_relation(answer, reference, ordered)))
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
  return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize('row', range(len(_SAME)), ids=map(str, _SAME))
def test_what_means_the_same(verdicts, row):
  assert verdicts[0][row] is True


@pytest.mark.parametrize('row', range(len(_DIFFERENT)), ids=ascii)
def test_what_does_not(verdicts, row):
  assert verdicts[0][len(_SAME) + row] is False


def test_relations_are_the_same_up_to_a_factor(verdicts):
  assert verdicts[1:] == [True, True, False, False, False, False, False, False]


def test_sympy_reads_literals_of_a_text_and_nothing_else():
  code = (
    'import sympy\n'
    'from dppo_jax.rewards.answers import equivalence\n'
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
