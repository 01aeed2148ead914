from experiments.docs import metrics


def test_every_metric_of_the_code_is_explained_and_no_other():
  assert metrics.names_in_code() == set(metrics.METRICS)


def test_every_metric_has_unit_and_meaning():
  for name, row in metrics.METRICS.items():
    assert row.unit, name
    assert row.meaning, name
    assert not row.meaning.endswith('.'), name
