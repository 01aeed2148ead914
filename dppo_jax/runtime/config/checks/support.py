"""Problems of the filter of the sampler, keys `sampling.support_…`."""

from collections.abc import Iterator, Mapping
from typing import Any


def find_problems(config: Mapping[str, Any]) -> Iterator[str]:
  """What the trainer could not replay, a sentence each.

  Args:
    config: plain nested dicts with the keys of configs/default.py.
  """
  sampling, region = config['sampling'], config['trust_region']
  if sampling['support_top_k']:
    if region['predictive_tail'] == 'uniform':
      yield (
        "trust_region.predictive_tail: got 'uniform', which spreads the mass"
        ' outside the recorded tokens over the vocabulary, and'
        f' sampling.support_top_k={sampling["support_top_k"]} leaves a part of'
        " it; use 'aggregated'."
      )
    return
  for key, everything in (('support_top_p', 1.0), ('support_min_p', 0.0)):
    if sampling[key] != everything:
      yield (
        f'sampling.{key}: got {sampling[key]}, and sampling.support_top_k=0'
        ' records no tokens, so that the trainer would score another law than'
        ' the one sampled; set that to the most tokens a support may hold, such'
        f' as 64, or leave this at {everything}.'
      )
