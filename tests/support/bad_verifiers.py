"""A verifier that fails in the ways verifiers fail, for worker processes."""


def fails(completion, example, truncated):
  del completion, truncated
  kind = example['example_id'] % 16
  if kind == 0:
    while True:  # Computes; what sleeps is ended by the clock alone.
      continue
  if kind < 8:
    raise RuntimeError('no idea')
  return 1.0, 'right'


def always_fails(completion, example, truncated):
  del completion, truncated
  return float(example['level']), 'right'  # A column that is not there.
