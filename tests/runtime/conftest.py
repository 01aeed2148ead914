import pytest

from tests.support import runs


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
  """Folder of a finished run, one for all tests; it is not to be changed."""
  return runs.finished(str(tmp_path_factory.getbasetemp()))
