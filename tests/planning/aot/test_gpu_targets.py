import pytest

from dppo_jax import hardware
from dppo_jax.planning.aot import gpu_targets, topologies
from tests.support import tpus


@pytest.mark.parametrize('kind', topologies.GPUS.values())
def test_every_kind_is_described(kind):
  text = gpu_targets.options(kind, 8)['target_config']
  assert text.count('{') == text.count('}') == 3
  assert f'device_memory_size: {int(hardware.DEVICES[kind].memory)}' in text
  assert f'name: "{kind}"' in text


@pytest.mark.parametrize(
  ('number', 'shape'), [(1, '1x1x1'), (7, '1x1x7'), (8, '1x1x8'), (16, '1x2x8')]
)
def test_more_than_a_host_fill_their_hosts(number, shape):
  assert gpu_targets.options('NVIDIA H100', number)['topology'] == shape


def test_a_host_that_is_not_full():
  with pytest.raises(ValueError, match='got 20 GPUs; more than 8 fill hosts'):
    gpu_targets.options('NVIDIA H100', 20)


@tpus.needs_cuda_plugin
def test_the_compiler_takes_the_descriptions():
  code = (
    'from dppo_jax.planning.aot import topologies\n'
    'for kind in topologies.GPUS:\n'
    "  (one,) = topologies.describe(topologies.parse(f'gpu:1x{kind}'))\n"
    '  print(one.platform, one.device_kind)\n'
    "devices = topologies.describe(topologies.parse('gpu:16xh100'))\n"
    'print(len(devices), len({one.process_index for one in devices}))\n'
  )
  *kinds, many = tpus.run(code)[-5:]
  assert kinds == [f'gpu {kind}' for kind in topologies.GPUS.values()]
  assert many == '16 2'
