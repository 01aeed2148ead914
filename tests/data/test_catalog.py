"""The table itself; what it reads is tested with the published shapes."""

import dataclasses

import pytest

from dppo_jax.data import catalog, fields


@pytest.mark.parametrize('name', sorted(catalog.SOURCES))
def test_a_row_is_complete(name):
  row = catalog.SOURCES[name]
  assert row.published
  assert row.prompt
  assert row.answer
  assert fields.parse_extra(row.extra) == (('*', '*'),)
  assert set(row.splits) <= {'train', 'validation', 'test'}


def test_rows_do_not_change():
  with pytest.raises(dataclasses.FrozenInstanceError):
    catalog.SOURCES['math'].published = 'elsewhere'
