import ast

import pytest

from dppo_jax.commands import entry_points, flags


def test_flags_are_those_of_the_entry_point_and_what_it_defines_elsewhere():
  found = {flag.name: flag for flag in flags.flags_of('train')}
  assert found['config'].kind == 'config'
  assert found['dry_run'].default is False
  assert found['num_processes'].kind == 'integer'  # Of several hosts.
  # A name in an f-string, of the module that defines the flag.
  assert 'JAX_COORDINATOR_ADDRESS' in found['coordinator'].meaning
  figures = {flag.name for flag in flags.flags_of('figures.stability')}
  assert {'tier', 'out', 'runs', 'parallel'} <= figures


def test_constants_of_other_modules_are_read():
  plan = {flag.name: flag.default for flag in flags.flags_of('plan')}
  assert plan['phases'] == ('sampling', 'scoring', 'training')
  assert plan['in_this_process'] is False
  (lora,) = (x for x in flags.flags_of('export') if x.name == 'lora')
  assert lora.default == 'merged'


@pytest.mark.parametrize('name', entry_points.commands())
def test_flags_of_every_command_can_be_read(name):
  flags.flags_of(name)


def test_what_cannot_be_read_is_told(tmp_path):
  for text in ('f.DEFINE_bool("a", g(), "")', 'f.DEFINE_bool(a, 1, "")'):
    file = tmp_path / f'{len(text)}.py'
    file.write_text(text)
    with pytest.raises(ValueError, match=file.name):
      flags._flags_in(file)


def test_an_unknown_entry_point_is_named():
  with pytest.raises(ValueError, match=r'experiments\.nothing'):
    flags.flags_of('nothing')


def test_values_are_literals():
  node = ast.parse('x = f"a{-1}"').body[0].value
  assert flags._value(node, entry_points.PACKAGE) == 'a-1'
