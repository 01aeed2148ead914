"""A figure: variants to run, points to plot, a claim to judge.

A module of experiments/figures defines one and passes it to `command.run`:

  FIGURE = Figure(
    name='stability', title='…', paper='DPPO Fig. 3', claim='…',
    variants={'PG-IS': presets.PRESETS['pg_is'], …},
    tiers={'cpu': Tier(config=stale_digits.get_config, seeds=range(10, 15)), …},
    panels=lambda points: [panels.over_steps(points, 'reward', …)],
    judge=judge, pod=('python -m experiments.train …',),
  )

Every variant is run with every seed; `rows` reads the folders of finished runs
and returns the points; `panels` and `judge` depend on the points only. A figure
that trains nothing has no variants, and its `rows` get no outcomes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
from typing import Any

from dppo_jax.analysis import run_tables
from dppo_jax.analysis.jobs.job import Job, Outcome, make_job
from dppo_jax.analysis.panels import PanelsFn
from dppo_jax.analysis.table import Points, Row
from dppo_jax.experiments.figures.harness.verdicts import Findings
from dppo_jax.suggestions import suggest

RowsFn = Callable[[Sequence[Outcome]], Iterable[Row]]
JudgeFn = Callable[[Points], Findings]
POD = 'pod'
# Seeds with which settings were tuned; verdicts do not use them.
TUNING_SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tier:
  """Size of a figure's runs.

  Attributes:
    config: returns the config that variants override.
    seeds: of the runs; a tier with verdicts has none of `TUNING_SEEDS`.
    only: names of the variants to run; () for all.
  """

  config: Callable[[], Any]
  seeds: Sequence[int]
  only: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
  """A figure of a paper.

  Attributes:
    name: of its module and files.
    title: of the figure.
    paper: paper and figure that it reproduces.
    claim: of the paper, in our words.
    variants: overrides of configs/default.py, by name.
    tiers: by name; without 'pod'.
    panels: points -> panels.
    judge: points -> findings.
    pod: commands of the paper's own setting.
    rows: finished runs -> points.
  """

  name: str
  title: str
  paper: str
  claim: str
  variants: Mapping[str, Mapping[str, Any]]
  tiers: Mapping[str, Tier]
  panels: PanelsFn
  judge: JudgeFn
  pod: Sequence[str]
  rows: RowsFn = dataclasses.field(
    default_factory=lambda: run_tables.step_rows(run_tables.COLUMNS)
  )


def jobs(figure: Figure, tier: Tier) -> list[Job]:
  """Runs of a tier, grouped by seed.

  So an interrupted figure has complete seeds.

  Args:
    figure: has the variants.
    tier: of the figure.
  """
  names = tier.only or list(figure.variants)
  base = tier.config()
  return [
    make_job(name, base, figure.variants[name], seed)
    for seed in tier.seeds
    for name in names
  ]


def check_tier(figure: Figure, name: str) -> None:
  """Checks the name of a tier.

  Raises:
    ValueError: no such tier; the message lists them.
  """
  known = (*figure.tiers, POD)
  if name not in known:
    raise ValueError(f'--tier: unknown {name!r}{suggest(name, known)}')
