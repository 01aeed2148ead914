"""The README's tables from the code: python -m experiments.tables README.md."""

from collections.abc import Iterable
import pathlib
import re
import sys

from dppo_jax.configs.presets import PRESETS
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.trust_regions import TRUST_REGIONS
from dppo_jax.rewards.verifiers import VERIFIERS

_BLOCK = re.compile(r'(<!-- table: (\w+) -->\n)(?:\n?\|[^\n]*\n)*')


def table(name: str) -> str:
  """The table called 'divergences', 'rules', 'verifiers' or 'presets'."""
  if name == 'divergences':
    head = ('divergence', 'formula', 'unit', 'the sampler records')
    found = DIVERGENCES.items()
    return _table(head, ((k, _line(r), r.unit, r.records) for k, r in found))
  if name == 'rules':
    head = ('rule', 'what it does', 'thresholds', 'scope')
    rows = TRUST_REGIONS.items()
    cells = ((k, _line(r), _code(r.reads), r.scope) for k, r in rows)
    return _table(head, cells)
  if name == 'verifiers':
    head, rows = ('verifier', 'reward 1', 'reads'), VERIFIERS.items()
    return _table(head, ((k, _line(r), r.reads) for k, r in rows))
  head = ('preset', 'what differs from PG-IS, the plain gradient')
  return _table(head, ((k, _changes(k)) for k in PRESETS))


def rewrite(text: str) -> str:
  """Returns the text with every marked table replaced by today's."""
  return _BLOCK.sub(lambda m: f'{m[1]}\n{table(m[2])}', text)


def _line(row) -> str:
  return row.fn.__doc__.split('\n')[0].rstrip('.').replace('|', '\\|')


def _changes(name: str) -> str:
  changed = PRESETS[name].items() - PRESETS['pg_is'].items()
  return _code(sorted(f'{k.split(".")[1]}={v}' for k, v in changed))


def _code(words: Iterable[str]) -> str:
  return ', '.join(f'`{word}`' for word in words)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
  lines = [head, ['---'] * len(head), *((f'`{k}`', *v) for k, *v in rows)]
  return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)


if __name__ == '__main__':
  readme = pathlib.Path(sys.argv[1])
  readme.write_text(rewrite(readme.read_text()))
