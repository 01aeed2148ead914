"""Every figure in its smallest size, and those that are kept."""

import importlib
import json
import math
import pathlib

import pytest

from dppo_jax.analysis import table as table_lib
from dppo_jax.experiments.figures import __main__ as every_figure
from dppo_jax.experiments.figures.harness import command, readme, verdicts
from dppo_jax.experiments.figures.harness import figure as figure_lib
from tests.support import pictures, runs

_RESULTS = runs.ROOT / 'experiments' / 'figures' / 'results'
_FIGURES = every_figure.known()
_KEPT = sorted(path.name for path in _RESULTS.glob('*') if path.is_dir())
# Several command lines in one process, as importing takes seconds.
_DRIVER = """
import contextlib, io, json, sys
from absl import flags
from dppo_jax.runtime import cli
from dppo_jax.experiments.figures import __main__ as figures
ends = []
for arguments in json.loads(sys.argv[1]):
  for name in ('tier', 'out', 'only'):
    flags.FLAGS[name].unparse()
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    argv = cli.parse_flags(['figures', *arguments])
    code = cli.guard(figures.main, argv)
  ends.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(ends))
"""


def _module(name):
  return importlib.import_module(f'dppo_jax.experiments.figures.{name}')


@pytest.fixture(scope='module')
def shared_runs(tmp_path_factory):
  """A folder of runs, so that figures share those they have in common."""
  return tmp_path_factory.mktemp('runs')


@pytest.mark.parametrize('name', _FIGURES)
def test_smoke(name, shared_runs, tmp_path):
  module = _module(name)
  assert module.FIGURE.name == name
  with runs.jobs_in_process():
    code = command.make(
      module.FIGURE, module.__doc__, 'smoke', tmp_path, shared_runs, 1
    )
  assert code == 0
  table = table_lib.read(tmp_path / f'{name}.csv')
  panels = command.panels_of(module.FIGURE, table)
  pictures.assert_shows(tmp_path / f'{name}.svg', panels)
  assert sum(len(panel.series) for panel in panels) > 0
  text = (tmp_path / 'README.md').read_text()
  for finding in module.FIGURE.judge(table):
    assert finding.verdict in verdicts.WORDS
    assert f'**{finding.verdict}** | {finding.num_seeds} |' in text
    # Nothing is shown by one seed; what is computed has no p.
    if finding.verdict != verdicts.NOT_DISTINGUISHABLE:
      assert math.isnan(finding.p)


@pytest.mark.parametrize('name', _FIGURES)
def test_seeds_that_judge_chose_no_setting(name):
  tiers = _module(name).FIGURE.tiers
  for tier in ('cpu', 'gpu'):
    seeds = set(tiers[tier].seeds)
    assert len(seeds) >= 5
    assert not seeds & set(figure_lib.TUNING_SEEDS)
  assert tiers['smoke'].seeds == (0,)


def test_every_figure_is_kept_but_those_to_be_run():
  assert set(_FIGURES) - set(_KEPT) <= {'fair_trial'}


@pytest.mark.parametrize('name', _KEPT)
def test_an_effect_is_the_same_for_more_and_for_alike(name):
  """In every figure, of what a run earns; only collapses are larger."""
  folder = _RESULTS / name
  found = _module(name).FIGURE.judge(table_lib.read(folder / f'{name}.csv'))
  for finding in found:
    if 'earn' in finding.claim:
      assert finding.rule.endswith((' ≥ 0.05', '| < 0.05')), finding.claim


@pytest.mark.parametrize('name', _KEPT)
def test_what_is_kept_is_drawn_from_its_points(name):
  figure, folder = _module(name).FIGURE, _RESULTS / name
  table = table_lib.read(folder / f'{name}.csv')
  pictures.assert_shows(
    folder / f'{name}.svg', command.panels_of(figure, table)
  )
  assert (folder / f'{name}.png').stat().st_size > 1000
  text = (folder / 'README.md').read_text()
  for finding in figure.judge(table):
    claim = finding.claim.replace('|', '\\|')
    assert f'| {claim} | **{finding.verdict}** | {finding.num_seeds} |' in text
    assert finding.seen.replace('|', '\\|') in text
  # Those of the runs that are kept, whatever has become of the presets.
  shown = list(figure.variants.values())[: readme._MOST_VARIANTS]
  if len(figure.variants) > len(shown):
    more = len(figure.variants) - len(shown)
    assert f'And {more} more: `FIGURE.variants` of' in text
  for overrides in shown:
    for key, value in overrides.items():
      assert f'`{key}={value}`' in text, (key, value)


def test_every_module_is_short():
  for name in _FIGURES:
    path = pathlib.Path(_module(name).__file__)
    assert len(path.read_text().splitlines()) <= 60, name


def test_every_claim_has_a_docstring_with_its_rule():
  for name in _FIGURES:
    assert 'erdict' in (_module(name).__doc__ or ''), name


def test_commands_that_cannot_be():
  lines = [
    ['--tier=cpu', '--out=/tmp/x', '--only=stabilty'],
    ['--tier=cpus', '--out=/tmp/x', '--only=stability'],
    ['--tier=pod', '--out=/tmp/x', '--only=stability'],
    ['--tier=cpu', '--only=stability'],
  ]
  figure, tier, pod, out = json.loads(runs.said(_DRIVER, json.dumps(lines)))
  assert figure[0] == 1
  assert "--only: unknown 'stabilty'; did you mean 'stability'?" in figure[2]
  assert 'bad_updates' in figure[2]
  assert tier[0] == 1
  assert "--tier: unknown 'cpus'; did you mean 'cpu'?" in tier[2]
  assert pod[0] == 0
  assert 'not yet run' in pod[1]
  assert out[0] == 1
  assert '--out: missing' in out[2]
