"""A verifier that fails in the ways verifiers fail, for worker processes."""

import time


def fails(completion, example, truncated):
  del completion, truncated
  kind = example['example_id'] % 16
  if kind == 0:
    time.sleep(60)
  if kind < 8:
    raise RuntimeError('no idea')
  return 1.0, 'right'
