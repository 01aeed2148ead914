import pytest

from dppo_jax.configs import tiny
from dppo_jax.experiments.figures.harness import figure as figure_lib
from tests.support import figures


def test_jobs_come_seed_by_seed():
  tier = figure_lib.Tier(config=tiny.get_config, seeds=(10, 4))
  jobs = figure_lib.jobs(figures.FIGURE, tier)
  assert [(job.name, job.seed) for job in jobs] == [
    ('PG-IS', 10),
    ('TV', 10),
    ('PG-IS', 4),
    ('TV', 4),
  ]
  assert jobs[1].config['trust_region']['rule'] == 'divergence'


def test_a_tier_may_run_some_variants():
  tier = figure_lib.Tier(config=tiny.get_config, seeds=(7,), only=('TV',))
  assert [j.name for j in figure_lib.jobs(figures.FIGURE, tier)] == ['TV']


def test_an_unknown_tier_lists_the_known():
  with pytest.raises(
    ValueError, match=r"^--tier: unknown 'cpus'; did you mean 'cpu'\?.*pod"
  ):
    figure_lib.check_tier(figures.FIGURE, 'cpus')
  figure_lib.check_tier(figures.FIGURE, 'pod')
