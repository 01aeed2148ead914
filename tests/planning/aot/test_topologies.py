import pytest

from dppo_jax import parallel
from dppo_jax.planning.aot import topologies
from tests.support import tpus


@pytest.mark.parametrize(
  ('name', 'slices', 'platform', 'kind', 'count'),
  [
    ('v5e:16x16', 1, 'tpu', 'TPU v5 lite', 256),
    ('v6e:16x16', 4, 'tpu', 'TPU v6 lite', 1024),
    ('v5p:8x16x16', 1, 'tpu', 'TPU v5', 2048),
    ('tpu7x:4x4x4', 1, 'tpu', 'TPU7x', 128),  # Two devices a chip.
    ('gpu:8xh100', 1, 'gpu', 'NVIDIA H100', 8),
    ('gpu:64xb200', 1, 'gpu', 'NVIDIA B200', 64),
    ('local', 1, 'local', 'cpu', 8),
  ],
)
def test_a_name_says_what_machine_it_is(name, slices, platform, kind, count):
  found = topologies.parse(name, slices)
  assert (found.platform, found.device_kind) == (platform, kind)
  assert (found.num_devices, found.num_slices) == (count, slices)


@pytest.mark.parametrize(
  ('name', 'slices', 'message'),
  [
    ('v5e:3x5', 1, "unknown 'v5e:3x5'. Known: v5e:2x2, .*, v5e:16x16"),
    ('v5e', 1, "unknown 'v5e'. Known: v5e:2x2"),
    ('v5litepod:4x4', 1, "unknown 'v5litepod:4x4'; .* Known: .*gpu:8xh100"),
    ('v5e-16', 1, "unknown 'v5e-16'; did you mean 'v5e:4x4', .* Known: v5e"),
    ('v5litepod-256', 1, "did you mean 'v5e:16x16'"),
    ('v5p-8', 1, "did you mean 'v5p:2x2x1'"),  # Counted in TensorCores.
    ('v5litepod-7', 1, "unknown 'v5litepod-7'.*Known: v5e:2x2"),
    ('v6p:16x16', 1, "did you mean 'v6e:16x16'"),
    ('gpu:h100', 1, "unknown 'gpu:h100'; gpu:NUMBERxKIND"),
    ('gpu:8xh900', 1, 'with the kinds a100, h100, h200, b200'),
    ('gpu:0xh100', 1, 'unknown'),
    ('gpu:8xh100', 2, '--slices: got 2; only TPUs'),
    ('v5e:4x4', 0, '--slices: got 0; at least 1'),
    ('', 1, "unknown ''"),
  ],
)
def test_an_unknown_name_lists_the_known(name, slices, message):
  with pytest.raises(ValueError, match=message):
    topologies.parse(name, slices)


def test_every_known_name_is_known():
  for name in topologies.known():
    assert topologies.parse(name).name == name


def test_without_the_compiler_it_is_said_how_to_get_it(monkeypatch):
  monkeypatch.setattr(topologies, 'can_compile', lambda platform='tpu': False)
  with pytest.raises(ValueError, match=r'dppo_jax\[tpu\].*--nocompile'):
    topologies.describe(topologies.parse('v5e:2x2'))
  with pytest.raises(ValueError, match=r'dppo_jax\[gpu_plan\].*--nocompile'):
    topologies.describe(topologies.parse('gpu:8xh100'))


@tpus.needs_libtpu
def test_the_compiler_knows_the_kinds(monkeypatch):
  monkeypatch.setenv('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  for name, slices in (('v5e:2x4', 1), ('v5e:2x2', 2), ('tpu7x:2x2x1', 1)):
    topology = topologies.parse(name, slices)
    devices = topologies.describe(topology)
    assert len(devices) == topology.num_devices
    assert {device.device_kind for device in devices} == {topology.device_kind}
    mesh = parallel.make_mesh(2, -1, 1, devices)
    assert mesh.size == topology.num_devices
    if slices == 2:  # The outermost axis is over slices.
      for i, half in enumerate(mesh.devices):
        assert {device.slice_index for device in half.flat} == {i}
