import numpy as np

from dppo_jax.experiments.docs import picture


def test_areas_are_those_of_pencil_and_paper():
  areas = {
    name: picture.masked(*row).mean() for name, row in picture.PANELS.items()
  }
  # The clip: pi > 1.2 mu and pi < .8 mu; TV: two triangles of side .8.
  np.testing.assert_allclose(
    areas['PPO, ratio clip .2'], 1 / 2.4 + 0.4, atol=0.01
  )
  np.testing.assert_allclose(areas['DPPO-Binary-TV .2'], 0.64, atol=0.01)
  assert 0.6 < areas['DPPO-Binary-KL .05'] < 0.8
