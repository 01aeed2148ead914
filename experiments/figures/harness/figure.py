"""What a figure is: variants to run, points to keep, a claim to judge.

A module of experiments/figures states one and hands it to `command.run`:

  FIGURE = Figure(
    name='stability', title='…', paper='DPPO Fig. 3', claim='…',
    variants={'PG-IS': presets.PRESETS['pg_is'], …},
    tiers={'cpu': Tier(config=stale_digits.get_config, seeds=range(10, 15)), …},
    panels=lambda points: [panels.over_steps(points, 'reward', …)],
    judge=judge, pod=('python -m experiments.train …',),
  )

Every variant is run with every seed; `rows` reads the folders of the runs that
were finished and makes the points; `panels` and `judge` see the points alone.
A figure that trains nothing has no variants, and its `rows` get no outcomes.
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
# Settings were chosen by looking at runs of these; no verdict is of them.
TUNING_SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tier:
  """A size to run a figure in.

  Attributes:
    config: returns the config that variants change.
    seeds: of the runs; of a tier that judges none of `TUNING_SEEDS`.
    only: names of the variants that are run; () runs all.
  """

  config: Callable[[], Any]
  seeds: Sequence[int]
  only: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
  """A figure of a paper.

  Attributes:
    name: of its module and files.
    title: what it shows.
    paper: which figure of which paper.
    claim: of the paper, in our words.
    variants: overrides by name, of keys of configs/default.py.
    tiers: by name; 'pod' is not among them.
    panels: points to what is drawn.
    judge: points to verdicts.
    pod: commands of the paper's own setting.
    rows: finished runs to points.
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
  """The runs of a tier, seed by seed.

  So an interrupted figure has whole seeds.

  Args:
    figure: whose variants.
    tier: of it.
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
    ValueError: there is none of that name; lists them.
  """
  known = (*figure.tiers, POD)
  if name not in known:
    raise ValueError(f'--tier: unknown {name!r}{suggest(name, known)}')
