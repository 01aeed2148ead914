import pytest

from dppo_jax.commands import entry_points, help_text
from tests.support import runs


@pytest.mark.parametrize('flag', ['--help', '-h', '-help', '--helpshort'])
def test_help_is_asked_for_in_every_way(flag):
  assert help_text.answer('train', ['--config=tiny', flag]) == (
    help_text.describe('train')
  )
  assert help_text.answer('train', ['--', flag]) is None


def test_the_rest_is_not_answered():
  assert help_text.answer('train', ['--config=tiny', '--workdir=help']) is None


def test_lists_are_asked_for_with_and_without_a_kind():
  presets = help_text.answer('train', ['--list=presets'])
  assert 'dppo_binary_kl' in presets
  assert help_text.answer('train', ['--list', 'presets']) == presets
  assert presets in help_text.answer('train', ['--list', '--config=tiny'])


def test_help_names_flags_launch_flags_and_names():
  text = help_text.describe('train')
  for told in (
    '  --workdir ',
    '  --[no]dry_run ',
    '  --coordinator ',
    '  --host_time_limit_s   Seconds until a silent process is given up. [300]',
    'configs (--list=configs): ',
    'dppo_binary_kl',
    'countdown',
    '--config.SECTION.KEY=VALUE',
    'DIR \\\n  --config.trust_region',
  ):
    assert told in text, told
  assert 'stability' in help_text.describe('figures')
  assert 'in_this_process' not in help_text.describe('plan')


def test_an_installed_package_names_its_own_command(monkeypatch):
  monkeypatch.setattr(entry_points, 'in_clone', lambda: False)
  text = help_text.describe('train')
  assert '\ndppo train --config=' in text
  assert 'python -m' not in text


def test_help_of_nothing_is_refused():
  with pytest.raises(ValueError, match="did you mean 'train'"):
    help_text.describe('trian')


@pytest.mark.parametrize(
  ('line', 'answered'),
  [
    (['python', '-m', 'experiments.train', '--help'], True),
    (['python', '-X', 'dev', '-m', 'dppo_jax.experiments.plan', '-h'], True),
    (['python', '-m', 'experiments.figures', '--list=figures'], True),
    (['python', '-m', 'experiments.train', '--config=tiny'], False),
    (['python', '-m', 'experiments.nothing', '--help'], False),
    (['python', '-m', 'pytest', '--help'], False),
    (['python', '-m', 'train', '--help'], False),
    (['python', 'experiments/train.py', '--help'], False),
  ],
)
def test_modules_are_answered_before_they_are_imported(line, answered):
  assert (help_text.of_module(line) is not None) is answered


def test_help_imports_no_jax():
  """Or it would take seconds."""
  out = runs.said(
    'import sys\n'
    'from dppo_jax.commands import help_text, mistakes\n'
    'help_text.describe("train")\n'
    'print(sorted({"jax", "flax", "orbax", "numpy"} & sys.modules.keys()))',
    fresh=True,
  )
  assert out.strip() == '[]'
