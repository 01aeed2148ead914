import dataclasses
import json

import pytest

from dppo_jax.experiments.bench import sampler, sampler_estimate
from dppo_jax.planning.aot import topologies
from tests.support import tpus

_SHAPE = sampler.SamplerShape(
  rows=64, width=2048, vocabulary=151_936, top_k=20, dtype='bfloat16'
)


@tpus.needs_libtpu
@pytest.mark.parametrize('topology', ['v5e:2x2', 'v5p:2x2x1'])
def test_sampling_is_a_fraction_of_the_product(topology):
  """By the estimates of the TPU's compiler: alone, and as decoding runs it."""
  code = (
    'import json\n'
    'from tests.experiments.bench import test_sampler_estimate as case\n'
    f'print(json.dumps(case.estimates({topology!r})))\n'
  )
  found = json.loads(tpus.run(code)[-1])
  product = found[sampler.PRODUCT]['cycles']
  alone, both = (
    found[sampler_estimate.ALONE],
    found[sampler_estimate.TOGETHER],
  )
  assert alone['cycles'] <= 0.45 * product
  assert both['cycles'] <= 1.45 * product
  assert 1 <= alone['passes'] <= 3
  assert 1 <= both['passes'] <= 3
  # No sort of all columns, and no gather from a copy of them.
  assert both['unestimated'] < 4 * 64 * 151_936 / 8


def estimates(topology):
  found = sampler_estimate.estimate(topology, _SHAPE)
  return {name: dataclasses.asdict(one) for name, one in found.items()}


@pytest.mark.skipif(topologies.can_compile(), reason='libtpu is here')
def test_without_the_compiler_it_says_what_to_install():
  with pytest.raises(ValueError, match='needs libtpu'):
    estimates('v5e:2x2')
