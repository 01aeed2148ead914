import math

import pytest

from dppo_jax.rewards import limits

_GOOD = dict(
  num_workers=1, time_limit_s=1.0, wall_limit_s=2.0, memory_limit_mb=256
)


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('num_workers', -1, 'rewards.num_workers: got -1; 0 or more'),
    ('time_limit_s', 0.0, 'rewards.time_limit_s: got 0.0; a positive number'),
    ('time_limit_s', math.nan, 'rewards.time_limit_s: got nan'),
    ('wall_limit_s', 0.5, r'at least rewards\.time_limit_s = 1\.0'),
    ('wall_limit_s', math.inf, 'rewards.wall_limit_s: got inf'),
    ('memory_limit_mb', 255, 'rewards.memory_limit_mb: got 255; at least 256'),
  ],
)
def test_what_is_out_of_range_is_named(key, value, message):
  limits.check_limits(**_GOOD)
  with pytest.raises(ValueError, match=message):
    limits.check_limits(**{**_GOOD, key: value})
