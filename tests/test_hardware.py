import pytest

from dppo_jax import hardware


@pytest.mark.parametrize(
  ('kind', 'memory'),
  [
    ('TPU v5 lite', 16e9),
    ('TPU v5', 95e9),
    ('TPU v5p', 95e9),
    ('TPU v6 lite', 32e9),
    ('NVIDIA H100 80GB HBM3', 80e9),
    ('NVIDIA H200', 141e9),
  ],
)
def test_the_longest_name_that_fits_counts(kind, memory):
  assert hardware.find_device(kind).memory == memory


def test_other_devices_have_no_row():
  assert hardware.find_device('cpu') is None
  assert hardware.find_device('TPU v99') is None


@pytest.mark.parametrize('kind', hardware.DEVICES)
def test_a_chunk_is_compute_bound(kind):
  device = hardware.DEVICES[kind]
  rows = hardware.head_chunk_tokens(kind, 151_936)
  assert rows % 128 == 0
  law = (8 if kind.startswith('TPU') else 4) * device.peak / device.bandwidth
  assert rows >= law > rows - 128


def test_few_columns_take_more_rows():
  assert hardware.head_chunk_tokens('cpu', 151_936) == hardware.OTHER_CHUNK_ROWS
  assert hardware.head_chunk_tokens('cpu', 20) > 100_000


def test_every_device_has_a_link():
  assert set(hardware.LINKS) == set(hardware.DEVICES)
  assert hardware.find_link('NVIDIA H100 80GB HBM3') == 0.45e12
  assert hardware.find_link('TPU v5 lite') == 0.2e12
  assert hardware.find_link('cpu') is None
