"""Surveys the tasks of reasoning-gym: which of them a run can learn from.

python -m experiments.tasks --only=chain_sum,gcd --num_items=50

Ends with exit code 1 if a task should be refused or pinned and is not.
"""

from absl import flags

from dppo_jax import reasoning_tasks
from dppo_jax.planning import task_survey
from dppo_jax.runtime import activity, cli
from dppo_jax.suggestions import suggest

_ONLY = flags.DEFINE_list('only', [], 'Names of tasks; all by default.')
_ITEMS = flags.DEFINE_integer('num_items', 20, 'Items drawn per task.')


def main() -> int:
  """Surveys; returns the exit code."""
  known = {*reasoning_tasks.names(), *reasoning_tasks.REFUSED} - {'composite'}
  for name in _ONLY.value:
    if name not in known:
      hint = suggest(name, sorted(known))
      raise ValueError(f'--only: unknown task {name!r}{hint}')
  if _ITEMS.value < 1:
    raise ValueError(f'--num_items: got {_ITEMS.value}; at least 1.')
  with activity.under_way('drawing items') as note:
    found = task_survey.survey(
      _ONLY.value or sorted(known),
      _ITEMS.value,
      lambda each: print(task_survey.describe(each), flush=True),
      note,
    )
  unlisted = [each for each in found if each.unlisted]
  for each in unlisted:
    print(f'{each.name}: {", ".join(each.unlisted)}; not known here.')
  return 1 if unlisted else 0


if __name__ == '__main__':
  cli.run(main)
