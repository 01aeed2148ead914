import json

import pytest

from dppo_jax.experiments.bench import head, head_estimate
from dppo_jax.planning.aot import topologies
from tests.support import tpus

_SHAPE = head.HeadShape(
  tokens=8192,
  width=4096,
  vocabulary=151_936,
  top_k=20,
  head_chunk_tokens=0,
  dtype='bfloat16',
)


@tpus.needs_libtpu
@pytest.mark.parametrize(
  ('topology', 'tensor', 'limit'),
  [
    ('v5e:2x4', 1, 1.2),
    ('v5e:2x4', 8, 1.3),
    ('v5p:2x2x2', 1, 1.3),
    ('v5p:2x2x2', 8, 1.3),
  ],
)
def test_the_pass_is_little_more_than_its_products(topology, tensor, limit):
  """By the estimates of the TPU's compiler, padding of the last chunk too."""
  code = (
    'import json\n'
    'from tests.experiments.bench import test_head_estimate as case\n'
    f'print(json.dumps(case.ratios({topology!r}, {tensor})))\n'
  )
  found = json.loads(tpus.run(code)[-1])
  assert found['Top-K TV'] <= limit
  assert found['exact TV'] <= 1.45 * found['Top-K TV']


def ratios(topology, tensor):
  found = head_estimate.estimate(
    topology, tensor, _SHAPE, ('Top-K TV', 'exact TV')
  )
  return {name: cycles / found[head.BARE] for name, cycles in found.items()}


@pytest.mark.skipif(topologies.can_compile(), reason='libtpu is here')
def test_without_the_compiler_it_says_what_to_install():
  with pytest.raises(ValueError, match='needs libtpu'):
    ratios('v5e:2x4', 1)
