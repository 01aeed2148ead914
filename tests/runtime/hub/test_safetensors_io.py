import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from dppo_jax.runtime.hub import json_files, safetensors_io
from tests.support import published, silence


@pytest.fixture
def arrays():
  rng = np.random.default_rng(0)
  wide = rng.standard_normal((5, 4, 6)).astype(np.float32)
  return {
    'a': wide,
    'b': wide[0].astype(jnp.bfloat16),
    'c': wide[1, :3].astype(np.float16),
    'd': np.float32(3.0)[None],
  }


def _write(folder, arrays, max_bytes=2**30):
  folder.mkdir(exist_ok=True)
  return published.rewrite(folder, arrays, max_bytes)


def test_written_arrays_are_read_again(tmp_path, arrays):
  (path,) = _write(tmp_path / 'x', arrays)
  assert path.name == 'model.safetensors'
  got = published.arrays(tmp_path / 'x')
  assert list(got) == list(arrays)
  for name, array in arrays.items():
    assert got[name].dtype == array.dtype
    assert got[name].tobytes() == array.tobytes()


def test_the_format_is_that_of_others(tmp_path, arrays):
  """Header: little-endian length, JSON, contiguous and aligned arrays."""
  (path,) = _write(tmp_path / 'x', arrays)
  data = path.read_bytes()
  length = int.from_bytes(data[:8], 'little')
  header = json.loads(data[8 : 8 + length])
  assert (8 + length) % 8 == 0
  assert header.pop('__metadata__') == {'format': 'pt'}
  assert header['b'] == {
    'dtype': 'BF16',
    'shape': [4, 6],
    'data_offsets': [480, 528],
  }
  assert len(data) == 8 + length + 480 + 48 + 36 + 4


def test_large_models_are_sharded(tmp_path, arrays):
  paths = _write(tmp_path / 'x', arrays, max_bytes=90)
  assert [path.name for path in paths] == [
    f'model-{i:05d}-of-00002.safetensors' for i in (1, 2)
  ]
  index = json.loads((tmp_path / 'x' / safetensors_io.INDEX).read_text())
  assert index['metadata'] == {'total_size': 568}
  assert index['weight_map'] == {
    name: paths[name != 'a'].name for name in 'abcd'
  }
  got = published.arrays(tmp_path / 'x')
  assert all((got[name] == arrays[name]).all() for name in arrays)


def test_a_slice_of_any_view(tmp_path, arrays, monkeypatch):
  monkeypatch.setattr(safetensors_io, '_CHUNK', 100)  # A row at a time.
  _write(tmp_path / 'x', arrays)
  tensor = safetensors_io.open_folder(tmp_path / 'x')['a']
  out = np.zeros((7, 2, 3), np.float64)
  index = (slice(2, 9), slice(None), slice(0, 3))
  tensor.read((20, 2, 3), index, out)
  np.testing.assert_array_equal(out, arrays['a'].reshape(20, 2, 3)[2:9])


def test_a_slice_reads_its_rows_only(tmp_path, arrays, monkeypatch):
  _write(tmp_path / 'x', arrays)
  tensor = safetensors_io.open_folder(tmp_path / 'x')['a']
  read, counts = np.fromfile, []

  def counting(file, dtype, count):
    counts.append(count)
    return read(file, dtype, count)

  monkeypatch.setattr(np, 'fromfile', counting)
  out = np.empty((2, 4, 1), np.float32)
  tensor.read((5, 4, 6), (slice(1, 3), slice(None), slice(5, 6)), out)
  np.testing.assert_array_equal(out, arrays['a'][1:3, :, 5:])
  assert counts == [48]


@pytest.mark.parametrize('size', [0, 5, 40, 700])
def test_a_truncated_file_is_named(tmp_path, arrays, size):
  (path,) = _write(tmp_path / 'x', arrays)
  path.write_bytes(path.read_bytes()[:size])
  with pytest.raises(ValueError, match=r'model\.safetensors: .*cut off.*again'):
    safetensors_io.open_folder(tmp_path / 'x')


def test_a_truncated_file_names_its_tensor(tmp_path, arrays):
  (path,) = _write(tmp_path / 'x', arrays)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match="cut off: 'd' ends at byte"):
    safetensors_io.read_header(path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, arrays):
  (path,) = _write(tmp_path / 'x', arrays)
  tensor = safetensors_io.read_header(path)['d']
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match="ends within 'd'; it changed"):
    tensor.read((1,), (slice(None),), np.empty(1, np.float32))


def _with_header(path, **entry):
  good = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}
  header = json.dumps({'w': {**good, **entry}}).encode()
  path.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(8))


@pytest.mark.parametrize(
  ('entry', 'message'),
  [
    ({'dtype': 'F8_E4M3'}, "'w' has dtype F8_E4M3; F32, F16, BF16 can be read"),
    ({'shape': [3]}, r"'w' has 8 bytes, and F32\[3\] takes 12"),
    ({'shape': [-2]}, "'w' has 8 bytes"),
    ({'data_offsets': [-4, 4]}, "'w' has 8 bytes"),
    ({'data_offsets': None}, "'w' lacks a dtype, a shape or offsets"),
    ({'shape': [2.0]}, "'w' lacks a dtype, a shape or offsets"),
    ({'shape': ['2']}, "'w' lacks a dtype, a shape or offsets"),
    ({'shape': [True, 2]}, "'w' lacks a dtype, a shape or offsets"),
    ({'data_offsets': [8, 16]}, "cut off: 'w' ends"),
    ({'data_offsets': [0, None]}, "'w' lacks a dtype, a shape or offsets"),
    ({'data_offsets': '08'}, "'w' lacks a dtype, a shape or offsets"),
    ({'dtype': ['F32']}, r"'w' has dtype \['F32'\]; F32, F16"),
    ({'dtype': {}}, "'w' has dtype {}; F32, F16"),
    ({'dtype': None}, "'w' has dtype None; F32, F16"),
    ({'shape': [2, *[1] * 99]}, "'w' has 8 bytes, and F32"),
    ({'shape': [10**4000]}, "'w' lacks a dtype, a shape or offsets"),
  ],
)
def test_a_damaged_header_is_named(tmp_path, entry, message):
  path = tmp_path / 'x.safetensors'
  _with_header(path)
  assert list(safetensors_io.read_header(path)) == ['w']
  _with_header(path, **entry)
  with pytest.raises(ValueError, match=message) as caught:
    safetensors_io.read_header(path)
  assert str(caught.value).startswith(f'{path}: ')


def _ranges(path, *ranges, tail=b''):
  """A file of arrays of so many bytes, from one byte to another."""
  header = {
    f'w{i}': {
      'dtype': 'F16',
      'shape': [(end - begin) // 2],
      'data_offsets': [begin, end],
    }
    for i, (begin, end) in enumerate(ranges)
  }
  text = json.dumps(header).encode()
  data = bytes(max((end for _, end in ranges), default=0)) + tail
  path.write_bytes(len(text).to_bytes(8, 'little') + text + data)
  return path


def test_arrays_tile_the_file_in_any_order(tmp_path):
  path = tmp_path / 'x.safetensors'
  _ranges(path, (8, 12), (0, 8), (8, 8), (12, 16))
  assert list(safetensors_io.read_header(path)) == ['w0', 'w1', 'w2', 'w3']
  assert safetensors_io.read_header(_ranges(path)) == {}


@pytest.mark.parametrize(
  ('ranges', 'tail', 'message'),
  [
    ([(0, 8), (0, 8)], b'', r"'w1', from byte .* overlaps 'w0'"),
    ([(0, 8), (6, 10)], b'', r"'w1', from byte .* overlaps 'w0'"),
    ([(0, 8), (2, 6)], b'', r"'w1', from byte .* overlaps 'w0'"),
    ([(0, 4), (2, 2), (4, 8)], b'', "'w1', from byte .* overlaps 'w0'"),
    ([(0, 4), (6, 8)], b'', "'w1', from byte .* leaves a hole after 'w0'"),
    ([(2, 4)], b'', "'w0', from byte .* leaves a hole after the header"),
    ([(0, 4)], b'more', "has 4 bytes after 'w0', which ends at byte"),
    ([], b'x', 'has 1 bytes after the header'),
  ],
)
def test_arrays_that_do_not_tile_the_file(tmp_path, ranges, tail, message):
  path = _ranges(tmp_path / 'x.safetensors', *ranges, tail=tail)
  with pytest.raises(ValueError, match=message) as caught:
    safetensors_io.read_header(path)
  assert str(caught.value).startswith(f'{path}: ')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (b'{"w": 1, "w": 2}', "it has 'w' twice"),
    (b'{"w": {"dtype": "F32", "dtype": "F16"}}', "it has 'dtype' twice"),
    (b'{"__metadata__": {"a": 1}}', '__metadata__ is no table of texts'),
    (b'{"__metadata__": []}', '__metadata__ is no table of texts'),
    (b'[' * 2**20, 'its header is not JSON'),
  ],
)
def test_a_header_that_readers_may_take_in_two_ways(tmp_path, text, message):
  path = tmp_path / 'x.safetensors'
  path.write_bytes(len(text).to_bytes(8, 'little') + text)
  with pytest.raises(ValueError, match=message):
    safetensors_io.read_header(path)


@pytest.mark.parametrize('text', [b'[]', b'{"a"', b'\xff\xfe'])
def test_a_header_that_is_no_table(tmp_path, text):
  path = tmp_path / 'x.safetensors'
  path.write_bytes(len(text).to_bytes(8, 'little') + text)
  with pytest.raises(ValueError, match=r'header is .*; download it again'):
    safetensors_io.read_header(path)


def test_a_header_of_very_many_lists_is_not_read(tmp_path):
  path = tmp_path / 'x.safetensors'
  text = b'{"w": [' + b'[],' * 2_000_000 + b'[]]}'
  path.write_bytes(len(text).to_bytes(8, 'little') + text)
  with pytest.raises(ValueError, match='more than 2,000,000 lists'):
    safetensors_io.read_header(path)


def test_a_folder_without_weights(tmp_path):
  with pytest.raises(
    ValueError, match=r'neither model\.safetensors nor .*Down'
  ):
    safetensors_io.open_folder(tmp_path)
  (tmp_path / 'pytorch_model.bin').touch()
  with pytest.raises(ValueError, match=r'a pickle, which is never loaded'):
    safetensors_io.open_folder(tmp_path)


def _index(folder, **places):
  path = folder / safetensors_io.INDEX
  index = json.loads(path.read_text())
  index['weight_map'] |= places
  path.write_text(json.dumps(index))


@pytest.mark.parametrize(
  ('places', 'message'),
  [
    ({'new': '../secret.safetensors'}, "places 'new' in '../secret"),
    ({'new': 'gone.safetensors'}, "gone.safetensors: missing, and .*'new'"),
    ({'new': 'model-00001-of-00007.safetensors'}, "lacks 'new', which"),
  ],
)
def test_an_inconsistent_index_is_refused(tmp_path, places, message):
  folder = published.copy('qwen3_gqa', tmp_path)
  _index(folder, **places)
  with pytest.raises(ValueError, match=message):
    safetensors_io.open_folder(folder)


def test_a_shard_with_unlisted_tensors_is_refused(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  path = folder / safetensors_io.INDEX
  index = json.loads(path.read_text())
  del index['weight_map']['model.norm.weight']
  path.write_text(json.dumps(index))
  with pytest.raises(ValueError, match=r"'model\.norm\.weight', which"):
    safetensors_io.open_folder(folder)


def test_a_tensor_in_two_shards(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  name = 'model.norm.weight'
  weight_map = json_files.read_json(folder / safetensors_io.INDEX)['weight_map']
  other = 'model-00001-of-00007.safetensors'
  assert weight_map[name] != other
  held = safetensors_io.read_header(folder / other)
  arrays = {n: np.zeros(t.shape, t.dtype) for n, t in held.items()}
  arrays[name] = np.zeros(48, np.float32)
  safetensors_io.write_file(
    folder / other,
    [
      safetensors_io.NewTensor(
        name=n, dtype=a.dtype, shape=a.shape, make=lambda a=a: a
      )
      for n, a in arrays.items()
    ],
  )
  with pytest.raises(
    ValueError, match=rf'{other}: holds .{name}., which .* places elsewhere'
  ):
    safetensors_io.open_folder(folder)


def test_a_name_that_an_index_places_twice(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  path = folder / safetensors_io.INDEX
  place = '"model.norm.weight": "gone.safetensors",'
  text = path.read_text().replace('"weight_map": {', f'"weight_map": {{{place}')
  path.write_text(text)
  with pytest.raises(ValueError, match=r"it has 'model\.norm\.weight' twice"):
    safetensors_io.open_folder(folder)


def test_a_folder_of_two_releases(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  (folder / safetensors_io.SINGLE).touch()
  with pytest.raises(ValueError, match=r'holds both model\.safetensors and'):
    safetensors_io.open_folder(folder)


def test_an_index_without_a_map(tmp_path):
  folder = published.copy('qwen3_gqa', tmp_path)
  (folder / safetensors_io.INDEX).write_text('{}')
  with pytest.raises(ValueError, match='lacks weight_map'):
    safetensors_io.open_folder(folder)
  shutil.rmtree(folder)
  with pytest.raises(ValueError, match='neither model'):
    safetensors_io.open_folder(folder)


def test_slow_writing_says_how_far_it_is(monkeypatch, tmp_path):
  with silence.of_command(monkeypatch) as heard:
    make = heard.slow(lambda: np.zeros(2, np.float32))
    safetensors_io.write_file(
      tmp_path / 'model.safetensors',
      [
        safetensors_io.NewTensor(
          name=name, dtype=np.dtype(np.float32), shape=(2,), make=make
        )
        for name in 'ab'
      ],
    )
  assert heard.told == [
    'writing model.safetensors, 0 of 2 tensors … 11 s',
    'writing model.safetensors, 1 of 2 tensors … 22 s',
  ]
