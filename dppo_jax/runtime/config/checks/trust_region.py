"""Checks of section `trust_region` of a config."""

from collections.abc import Iterator

from dppo_jax.ops.divergences import DIVERGENCES, of_the_sampled_token
from dppo_jax.ops.trust_regions import (
  APPLIES_TO,
  TRUST_REGIONS,
  open_thresholds,
)
from dppo_jax.runtime.config.checks.ranges import Config


def trust_region_problems(config: Config) -> Iterator[str]:
  """Problems of the divergence: what it needs recorded, its bounds' unit."""
  region = config['trust_region']
  top_k = config['sampling']['top_k']
  row = DIVERGENCES[region['divergence']]
  name = region['divergence']
  if row.records == 'top_k' and top_k == 0:
    others = ' or '.join(map(repr, of_the_sampled_token(row.unit)))
    yield (
      f'trust_region.divergence: {name!r} reads the top-K log-probs and'
      f' sampling.top_k=0 records none; set it to 20, or use {others}.'
    )
  if row.unit == 'probability':
    for key in ('delta_low', 'delta_high'):
      if region[key] > 1:
        yield (
          f'trust_region.{key}: got {region[key]}; {name!r} is a probability'
          ' and never exceeds 1, so the bound would mask nothing; use rule'
          " 'none' to mean that."
        )


def rule_problems(config: Config) -> Iterator[str]:
  """Problems of the rule: keys that it does not read, weights it divides by."""
  region, objective = config['trust_region'], config['objective']
  rule = region['rule']
  row = TRUST_REGIONS[rule]
  if not row.gated:
    decides = 'on whole sequences' if row.scope == 'sequence' else 'on its own'
    for key in APPLIES_TO:
      allowed = getattr(open_thresholds(), key)
      if key not in row.reads and region[key] != allowed:
        yield (
          f'trust_region.{key}: got {region[key]!r}; rule {rule!r} decides'
          f' {decides} and does not read it; leave it at {allowed!r}.'
        )
  if rule == 'cppo_soft':
    for key in ('delta_low', 'delta_high'):
      if region[key] == 0:
        yield (
          f'trust_region.{key}: got {region[key]}; rule {rule!r} divides by'
          ' it; a number above 0.'
        )
  if objective['ratio_floor'] > objective['ratio_cap']:
    yield (
      f'objective.ratio_floor: got {objective["ratio_floor"]}; at most'
      f' objective.ratio_cap={objective["ratio_cap"]}.'
    )
