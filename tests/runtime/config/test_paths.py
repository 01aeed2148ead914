import pytest

from dppo_jax.runtime.config.paths import config_path


def test_an_error_begins_with_the_key_that_named_its_cause():
  cause = ValueError('no config.json in /x')

  def read():
    with config_path('model.pretrained'):
      raise cause

  with pytest.raises(ValueError, match=r'^model\.pretrained: no config') as got:
    read()
  assert got.value.__cause__ is cause


def test_other_errors_pass_as_they_are():
  def read():
    with config_path('model.pretrained'):
      raise OSError('disk')

  with pytest.raises(OSError, match=r'^disk$'):
    read()
