import contextlib
import os
import struct
import sys

import gguf
import numpy as np
import pytest

from dppo_jax.gguf_files import header
from tests.support import gguf_model


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return gguf_model.write(tmp_path_factory.mktemp('model') / 'm.gguf')


def _file(path, entries=(), tensors=(), version=3, counts=None, tail=b''):
  """A file of raw entries and raw tensors."""
  counts = counts or (len(tensors), len(entries))
  path.write_bytes(
    b'GGUF'
    + struct.pack('<IQQ', version, *counts)
    + b''.join(entries)
    + b''.join(tensors)
    + tail
  )
  return path


def _text(text):
  return struct.pack('<Q', len(text)) + text


def _entry(key, kind, value):
  return _text(key) + struct.pack('<I', kind) + value


def _tensor(name, sizes=(1,), kind=0, offset=0):
  return _text(name) + struct.pack(
    f'<I{len(sizes)}QIQ', len(sizes), *sizes, kind, offset
  )


def test_it_says_what_the_package_reads(model):
  found, other = header.read(model), gguf.GGUFReader(model)
  for key, field in other.fields.items():
    if not key.startswith('GGUF.'):
      value = found.metadata[key]
      value = value.tolist() if isinstance(value, np.ndarray) else value
      assert value == field.contents()
  assert len(found.tensors) == len(other.tensors)
  for tensor in other.tensors:
    entry = found.tensors[tensor.name]
    assert entry.shape == tuple(reversed(tensor.shape.tolist()))
    assert (entry.kind, entry.offset, entry.num_bytes) == (
      tensor.tensor_type.name,
      tensor.data_offset,
      tensor.n_bytes,
    )


def test_it_is_read_once(model):
  assert header.read(model) is header.read(model)


def test_a_file_cut_anywhere_is_refused_in_a_line(model, tmp_path):
  whole, path = model.read_bytes(), tmp_path / 'cut.gguf'
  for length in [*range(0, 400, 7), *range(400, len(whole), 9_001)]:
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match='download it again') as caught:
      header.read(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert '\n' not in str(caught.value)


def test_flipped_bytes_end_in_an_error_or_a_header(model, tmp_path):
  """Nothing but a ValueError, and nothing that the file cannot pay for."""
  whole, path = model.read_bytes(), tmp_path / 'flipped.gguf'
  for at in range(4, 2000, 13):
    changed = bytearray(whole)
    changed[at] ^= 0xFF
    path.write_bytes(changed)
    with contextlib.suppress(ValueError):
      header.read(path)


_HUGE = struct.pack('<Q', 2**63 - 1)


@pytest.mark.parametrize(
  ('name', 'arguments', 'problem'),
  [
    ('tensors', dict(counts=(2**40, 0)), 'claims .* tensors; at most 100,000'),
    ('keys', dict(counts=(0, 2**40)), 'claims .* keys; at most 10,000'),
    ('a key', dict(entries=[_HUGE]), 'bytes in the name of a key'),
    ('a text', dict(entries=[_entry(b'k', 8, _HUGE)]), "bytes in 'k'"),
    (
      'numbers',
      dict(entries=[_entry(b'k', 9, struct.pack('<I', 0) + _HUGE)]),
      "more than 4,000,000 values in its arrays, with 'k'",
    ),
    (
      'arrays of arrays',
      dict(entries=[_entry(b'k', 9, struct.pack('<IQ', 9, 1) * 50)]),
      "unknown type 9 in 'k'",
    ),
    ('a type', dict(entries=[_entry(b'k', 77, b'')]), "type 77 in 'k'"),
    ('no UTF-8', dict(entries=[_entry(b'k', 8, _text(b'\xff'))]), 'no UTF-8'),
    ('twice', dict(entries=[_entry(b'k', 0, b'1')] * 2), "has 'k' twice"),
    (
      'alignment',
      dict(
        entries=[_entry(b'general.alignment', 4, struct.pack('<I', 3))],
      ),
      'general.alignment=3; a power of two',
    ),
    ('axes', dict(tensors=[_tensor(b't', (1,) * 9)]), "9 axes in 't'"),
    ('size', dict(tensors=[_tensor(b't', (2**40, 2**40))]), "shape .* 't'"),
    ('nothing', dict(tensors=[_tensor(b't', (0,))]), "shape .* in 't'"),
    ('kind', dict(tensors=[_tensor(b't', kind=999)]), 'unknown kind 999'),
    ('blocks', dict(tensors=[_tensor(b't', (33,), 8)]), '33 numbers a row'),
    (
      'overlap',
      dict(tensors=[_tensor(b't', (9,)), _tensor(b'u', (9,), offset=32)]),
      "'u' at byte .*, within 't'",
    ),
    (
      'the same tensor',
      dict(tensors=[_tensor(b't'), _tensor(b't', offset=32)]),
      "tensor 't' twice",
    ),
    ('beyond', dict(tensors=[_tensor(b't', (2**30,))]), "cut off: 't'"),
    ('far', dict(tensors=[_tensor(b't', offset=2**50)]), "cut off: 't'"),
    ('version', dict(version=1), 'version 1; versions 2 and 3'),
    ('byte order', dict(version=3 << 24), 'big-endian numbers'),
  ],
)
def test_hostile_headers(tmp_path, name, arguments, problem):
  path = _file(tmp_path / 'm.gguf', **{'tail': bytes(200), **arguments})
  with pytest.raises(ValueError, match=problem) as caught:
    header.read(path)
  assert str(path) in str(caught.value), name
  assert '\n' not in str(caught.value)


def test_a_long_header_is_read_up_to_the_bound(tmp_path, monkeypatch):
  monkeypatch.setattr(header, 'MAX_BYTES', 1000)
  path = _file(tmp_path / 'm.gguf', [_entry(b'k', 8, _text(b'x' * 990))])
  with pytest.raises(ValueError, match='header of more than 1,000 bytes'):
    header.read(path)


def test_other_files(tmp_path):
  path = tmp_path / 'm.gguf'
  with pytest.raises(ValueError, match='no such file'):
    header.read(path)
  path.write_bytes(b'PK\x03\x04' + bytes(100))
  with pytest.raises(ValueError, match='is no GGUF file'):
    header.read(path)
  os.mkfifo(tmp_path / 'pipe.gguf')
  with pytest.raises(ValueError, match='no such file'):
    header.read(tmp_path / 'pipe.gguf')


def test_without_the_package(model, tmp_path, monkeypatch):
  path = tmp_path / 'm.gguf'
  path.write_bytes(model.read_bytes())
  monkeypatch.setitem(sys.modules, 'gguf', None)
  with pytest.raises(ValueError, match=r"pip install 'dppo_jax\[gguf\]'"):
    header.read(path)


def test_is_file(tmp_path):
  assert header.is_file(tmp_path / 'm.GGUF')
  assert not header.is_file(tmp_path / 'm')
  (tmp_path / 'folder.gguf').mkdir()
  assert not header.is_file(tmp_path / 'folder.gguf')
