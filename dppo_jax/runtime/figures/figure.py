"""What a figure is: variants to run, points to keep, a claim to judge.

A module of experiments/figures states one and hands it to `command.run`:

  FIGURE = Figure(
    name='stability', title='…', paper='DPPO Fig. 3', claim='…',
    variants={'PG-IS': presets.PRESETS['pg_is'], …},
    tiers={'cpu': Tier(config=stale_digits.get_config, num_seeds=3), …},
    rows=collect.step_rows({'reward': 'rewards/mean'}),
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

from dppo_jax.runtime.figures.panels import PanelsFn, Style
from dppo_jax.runtime.figures.points import Points, Row
from dppo_jax.runtime.figures.verdicts import Finding
from dppo_jax.runtime.jobs.job import Job, Outcome, make_job

RowsFn = Callable[[Sequence[Outcome]], Iterable[Row]]
JudgeFn = Callable[[Points], Sequence[Finding]]
POD = 'pod'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tier:
  """A size to run a figure in.

  Attributes:
    config: returns the config that variants change.
    num_seeds: n; seeds are 0 to n - 1.
    only: names of the variants that are run; () runs all.
  """

  config: Callable[[], Any]
  num_seeds: int
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
    rows: finished runs to points.
    panels: points to what is drawn.
    judge: points to verdicts.
    pod: commands of the paper's own setting.
    styles: of labels.
  """

  name: str
  title: str
  paper: str
  claim: str
  variants: Mapping[str, Mapping[str, Any]]
  tiers: Mapping[str, Tier]
  rows: RowsFn
  panels: PanelsFn
  judge: JudgeFn
  pod: Sequence[str]
  styles: Mapping[str, Style] = dataclasses.field(default_factory=dict)


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
    for seed in range(tier.num_seeds)
    for name in names
  ]


def find_tier(figure: Figure, name: str) -> Tier:
  """A tier by name.

  Raises:
    ValueError: there is none of that name; lists them.
  """
  if name not in figure.tiers:
    known = ', '.join([*figure.tiers, POD])
    raise ValueError(f'--tier: unknown {name!r} for {figure.name}; {known}.')
  return figure.tiers[name]
