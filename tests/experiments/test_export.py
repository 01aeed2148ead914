"""The command: what it writes, its exit codes and its errors."""

import functools
import importlib
import sys

from absl import flags
import pytest

from dppo_jax.runtime import cli
from tests.support import runs


@pytest.fixture
def command(capsys, monkeypatch):
  # Commands name flags alike, and tests of others run in this process.
  values = flags.FlagValues()
  monkeypatch.setattr(flags, 'FLAGS', values)
  for name in ('DEFINE_string', 'DEFINE_float'):
    define = functools.partial(getattr(flags, name), flag_values=values)
    monkeypatch.setattr(flags, name, define)
  monkeypatch.delitem(sys.modules, 'dppo_jax.experiments.export', raising=False)
  export = importlib.import_module('dppo_jax.experiments.export')
  values.mark_as_parsed()

  def run(**given):
    for name in values:
      values[name].unparse()
    for name, value in given.items():
      values[name].parse(str(value))
    with runs.quick_compilation():
      code = cli.guard(export.main, ['export'])
    return code, *capsys.readouterr()

  return run


def test_a_run_becomes_a_folder(finished, tmp_path, command):
  code, out, err = command(workdir=finished, out=tmp_path / 'hf', step='best')
  assert code == 0
  assert err.startswith('note: no tokenizer is written: the run has the words')
  for name in ('config.json', 'generation_config.json', 'model.safetensors'):
    assert f'{tmp_path / "hf" / name}\n' in out
    assert (tmp_path / 'hf' / name).is_file()


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({}, '--workdir: missing; name the run to export'),
    ({'workdir': 'x'}, '--out: missing; name the folder to write'),
    ({'workdir': 'x', 'out': 'y'}, 'holds no run'),
  ],
)
def test_what_is_missing_is_said(command, given, message):
  code, out, err = command(**given)
  assert (code, out) == (1, '')
  assert message in err


def test_shards_of_no_size(command, finished, tmp_path):
  given = dict(workdir=finished, out=tmp_path / 'hf', max_shard_gb=0.0)
  code, _, err = command(**given)
  assert code == 1
  assert '--max_shard_gb: got 0.0; a number above 0.' in err


def test_a_run_without_an_adapter_keeps_none(command, finished, tmp_path):
  code, _, err = command(workdir=finished, out=tmp_path / 'hf', lora='adapter')
  assert code == 1
  assert "--lora: got 'adapter', and lora.rank=0 trained every weight" in err
  assert not (tmp_path / 'hf').exists()
