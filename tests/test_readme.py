"""What the README shows runs."""

import pathlib
import re

from experiments import tables

_README = pathlib.Path(__file__).parents[1] / 'README.md'
_BLOCK = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def test_python_blocks_run_in_order_as_one_program():
  text = _README.read_text()
  blocks = list(_BLOCK.finditer(text))
  assert blocks
  namespace = {'__name__': 'readme'}
  for block in blocks:
    # Blank lines in front keep the line numbers of the README in a traceback.
    start = text.count('\n', 0, block.start(1))
    code = compile('\n' * start + block.group(1), str(_README), 'exec')
    exec(code, namespace)


def test_tables_are_those_of_the_code():
  text = _README.read_text()
  # To mend it: python -m experiments.tables README.md
  assert tables.rewrite(text) == text
  for name in ('divergences', 'rules', 'verifiers', 'presets'):
    assert f'<!-- table: {name} -->' in text
