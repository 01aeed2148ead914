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
  if row.certified:
    yield from _certified_problems(config)
  elif region['direction'] == 'predictive' and row.rate is None:
    yield (
      f"trust_region.direction: got 'predictive'; the rate of {name!r} has the"
      " sign of pi - mu, so that it is 'away': use that, or a Top-K or exact"
      ' divergence.'
    )
  # A soft rule divides by its bound, of any size.
  soft = TRUST_REGIONS[region['rule']].divides_by
  if row.unit == 'probability' and not soft:
    for key in ('delta_low', 'delta_high'):
      if region[key] > 1:
        yield (
          f'trust_region.{key}: got {region[key]}; {name!r} is a probability'
          ' and never exceeds 1, so the bound would mask nothing; use rule'
          " 'none' to mean that."
        )


def _certified_problems(config: Config) -> Iterator[str]:
  """Problems of a divergence that is measured where bounds are open."""
  region = config['trust_region']
  name = region['divergence']
  if region['rule'] != 'divergence':
    yield (
      f'trust_region.divergence: {name!r} decides D > delta and nothing else,'
      f" and rule {region['rule']!r} asks for more; use 'exact_tv', or rule"
      " 'divergence'."
    )
  if region['direction'] == 'predictive':
    yield (
      "trust_region.direction: got 'predictive', which needs the rate of every"
      f" token, and {name!r} measures some; use 'exact_tv'."
    )
  if config['sampling']['top_k'] == 0:
    yield (
      f'trust_region.divergence: {name!r} bounds D by the top-K log-probs and'
      " sampling.top_k=0 records none; set it to 20, or use 'exact_tv'."
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
  for key in row.divides_by:
    if region[key] == 0:
      yield (
        f'trust_region.{key}: got {region[key]}; rule {rule!r} divides by it;'
        ' a number above 0.'
      )
  if row.reads_entropy and region['anchor'] != 'rollout':
    yield (
      f'trust_region.anchor: got {region["anchor"]!r}; rule {rule!r} reads the'
      " entropy, which the sampler records; use 'rollout'."
    )
  yield from _centering_problems(config)
  if objective['ratio_floor'] > objective['ratio_cap']:
    yield (
      f'objective.ratio_floor: got {objective["ratio_floor"]}; at most'
      f' objective.ratio_cap={objective["ratio_cap"]}.'
    )


def _centering_problems(config: Config) -> Iterator[str]:
  """Problems of score centering, which sums over what mu might have drawn."""
  region, objective = config['trust_region'], config['objective']
  kind = objective['centering']
  if kind == 'off':
    if objective['centering_mask'] != 'token':
      yield (
        f'objective.centering_mask: got {objective["centering_mask"]!r}, and'
        " objective.centering='off' leaves nothing to mask; leave it at"
        " 'token', or set centering to 'topk' or 'exact'."
      )
    return
  path = f'objective.centering: got {kind!r}'
  if kind == 'topk' and config['sampling']['top_k'] == 0:
    yield (
      f'{path}, a sum over recorded tokens, and sampling.top_k=0 records none;'
      " set it to 20 or more, or use 'exact'."
    )
  if objective['importance'] not in ('token', 'none'):
    yield (
      f'{path}; a token that was not sampled has no importance'
      f' {objective["importance"]!r}; use objective.importance'
      " 'token' or 'none'."
    )
  if region['anchor'] != 'rollout':
    yield (
      f'{path}, an expectation under the policy that sampled; set'
      " trust_region.anchor to 'rollout'."
    )
  rule = region['rule']
  scope = TRUST_REGIONS[rule].scope
  if objective['centering_mask'] == 'candidate' and scope != 'token':
    yield (
      f"objective.centering_mask: got 'candidate'; rule {rule!r} decides by"
      ' other tokens, too, and says nothing of one that was not sampled; use'
      " 'token', or a rule of single tokens."
    )
