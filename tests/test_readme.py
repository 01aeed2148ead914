"""What the README shows runs."""

import pathlib
import re
import subprocess

from dppo_jax.configs import default
from dppo_jax.experiments import tables

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


def _chapter(name):
  (text,) = re.findall(
    rf'^## {name}$(.*?)(?=^## )', _README.read_text(), re.MULTILINE | re.DOTALL
  )
  return text


def test_commands_to_launch_name_what_exists():
  text, root = _chapter('Launching'), _README.parent
  for module in re.findall(r'-m (experiments\.\w+)', text):
    assert (root / f'{module.replace(".", "/")}.py').is_file(), module
  paths = re.findall(r'\b((?:configs|experiments)/[\w/]+\.?\w*)', text)
  assert len(set(paths)) > 3
  for path in paths:
    assert (root / path).exists(), path
  for key in re.findall(r'--config\.([\w.]+)=', text):
    section, name = key.split('.')
    assert name in default.get_config()[section], key
  blocks = re.findall(r'^```bash$(.*?)^```$', text, re.MULTILINE | re.DOTALL)
  assert len(blocks) > 5
  for script in (
    *blocks,
    (root / 'experiments/launch/slurm.sbatch').read_text(),
  ):
    done = subprocess.run(
      ['bash', '-n'], input=script, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ''), script
