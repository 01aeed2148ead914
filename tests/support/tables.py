"""Tables written by hand."""

from dppo_jax.analysis.table import Points


def table(values, column='reward', **more):
  """Points of {variant: [a value a seed]}, two steps around each value."""
  rows = []
  for variant, seeds in values.items():
    for seed, value in enumerate(seeds):
      for step, shift in ((1, -0.01), (2, 0.01)):
        others = {k: str(v[variant][seed]) for k, v in more.items()}
        rows.append(
          {
            'variant': variant,
            'seed': str(seed),
            'step': str(step),
            column: str(value + shift),
            **others,
          }
        )
  return Points(rows)
