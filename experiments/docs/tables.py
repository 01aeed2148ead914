"""Tables of the documentation, generated from the code.

A page marks the place with `<!-- table: rules -->`; the table after it is
replaced. Names with a dot select a part: `config.data`,
`flags.experiments.train`, `metrics.rollout`.
"""

import ast
from collections.abc import Iterable, Iterator
import importlib
import io
import pathlib
import re
import tokenize

from dppo_jax.commands import listing
from dppo_jax.configs import default
from dppo_jax.configs.presets import PRESETS
from dppo_jax.data import downloads
from dppo_jax.data.catalog import SOURCES
from dppo_jax.experiments.docs import commands, metrics, papers
from dppo_jax.ops.advantages import ADVANTAGES
from dppo_jax.ops.divergences import DIVERGENCES
from dppo_jax.ops.trust_regions import TRUST_REGIONS
from dppo_jax.rewards.environments.table import ENVIRONMENTS
from dppo_jax.rewards.verifiers import VERIFIERS

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r'(<!-- table: ([\w.]+) -->\n)(?:\n?\|[^\n]*\n)*')

Rows = Iterable[tuple[str, ...]]


def table(name: str) -> str:
  """Markdown of a table, by name.

  Raises:
    ValueError: no such table.
  """
  kind, _, part = name.partition('.')
  if name not in _TABLES and kind not in _PARTS:
    known = (*_TABLES, *(f'{kind}.…' for kind in _PARTS))
    raise ValueError(f'table: unknown {name!r}; known: {", ".join(known)}')
  head, rows = _PARTS[kind](part) if part else _TABLES[name]()
  if kind not in _IN_WORDS:
    rows = ((f'`{first}`', *cells) for first, *cells in rows)
  lines = [head, ['---'] * len(head), *rows]
  return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)


def rewrite(text: str) -> str:
  """Text with every marked table regenerated."""
  return _BLOCK.sub(lambda m: f'{m[1]}\n{table(m[2])}', text)


def marked(text: str) -> list[str]:
  """Names of the tables that a text marks."""
  return [match[2] for match in _BLOCK.finditer(text)]


def pages(root: pathlib.Path) -> list[pathlib.Path]:
  """README.md and the pages of docs/."""
  return [root / 'README.md', *sorted((root / 'docs').rglob('*.md'))]


def sections() -> dict[str, list[tuple[str, str, str]]]:
  """Keys of configs/default.py by section: (key, default, meaning).

  Section '' has the top-level keys; the meaning is the comment after a key.
  """
  text = (_ROOT / 'configs/default.py').read_text()
  comments = _comments(text)
  found: dict[str, list[tuple[str, str, str]]] = {'': []}
  for node in ast.walk(ast.parse(text)):
    if not isinstance(node, ast.Assign):
      continue
    owner, _, key = ast.unparse(node.targets[0]).partition('.')
    if owner != 'config' or not key:
      continue
    if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == (
      'dict'
    ):
      found[key] = list(_keys(node.value, '', comments))
    else:
      meaning = comments.get(node.lineno, '')
      found[''].append((key, ast.unparse(node.value), meaning))
  return found


def _keys(
  call: ast.Call, prefix: str, comments: dict[int, str], above: str = ''
) -> Iterator[tuple[str, str, str]]:
  for keyword in call.keywords:
    name, value = f'{prefix}{keyword.arg}', keyword.value
    if isinstance(value, ast.Call) and ast.unparse(value.func) == 'dict':
      about = comments.get(value.lineno, '')
      yield from _keys(value, f'{name}.', comments, about)
    else:
      default = ast.unparse(value).replace("float('inf')", 'inf')
      yield name, default, comments.get(value.end_lineno or 0, above)


def _comments(text: str) -> dict[int, str]:
  tokens = tokenize.generate_tokens(io.StringIO(text).readline)
  return {
    token.start[0]: token.string.lstrip('# ')
    for token in tokens
    if token.type == tokenize.COMMENT
  }


def _line(fn) -> str:
  return _cell(fn.__doc__.split('\n')[0].rstrip('.'))


def _cell(text: str) -> str:
  return text.replace('|', '\\|')


def _code(words: Iterable[str]) -> str:
  return ', '.join(f'`{_cell(word)}`' for word in words)


def _config(section: str) -> tuple[tuple[str, ...], Rows]:
  prefix = f'{section}.' if section != 'top' else ''
  rows = sections()['' if section == 'top' else section]
  return ('key', 'default', 'meaning'), (
    (f'{prefix}{key}', _code([default]), _cell(meaning))
    for key, default, meaning in rows
  )


def _flags(module: str) -> tuple[tuple[str, ...], Rows]:
  return ('flag', 'default', 'meaning'), (
    (
      f'--{flag.name}',
      '' if flag.default in (None, '', []) else _code([_default(flag.default)]),
      _cell(flag.meaning),
    )
    for flag in commands.flags_of(module)
    if not flag.meaning.startswith('Internal')
  )


def _default(value) -> str:
  return ','.join(value) if isinstance(value, tuple | list) else str(value)


def _metrics(group: str) -> tuple[tuple[str, ...], Rows]:
  return ('metric', 'unit', 'meaning'), (
    (name, row.unit, _cell(row.meaning))
    for name, row in metrics.METRICS.items()
    if name.startswith(f'{group}/')
  )


def _divergences() -> tuple[tuple[str, ...], Rows]:
  return ('divergence', 'formula', 'unit', 'the sampler records'), (
    (name, _line(row.fn), row.unit, row.records)
    for name, row in DIVERGENCES.items()
  )


def _rules() -> tuple[tuple[str, ...], Rows]:
  return ('rule', 'definition', 'thresholds', 'scope'), (
    (name, _line(row.fn), _code(row.reads), row.scope)
    for name, row in TRUST_REGIONS.items()
  )


def _verifiers() -> tuple[tuple[str, ...], Rows]:
  return ('verifier', 'reward 1', 'reads'), (
    (name, _line(row.fn), row.reads) for name, row in VERIFIERS.items()
  )


def _environments() -> tuple[tuple[str, ...], Rows]:
  return ('environment', 'replies'), (
    (name, _line(fn)) for name, fn in ENVIRONMENTS.items()
  )


def _advantages() -> tuple[tuple[str, ...], Rows]:
  return ('estimator', 'formula'), (
    (name, _line(fn)) for name, fn in ADVANTAGES.items()
  )


def _presets() -> tuple[tuple[str, ...], Rows]:
  plain = PRESETS['pg_is'].items()
  return ('preset', 'differences from PG-IS, the plain policy gradient'), (
    (
      name,
      _code(sorted(f'{k.split(".")[1]}={v}' for k, v in keys.items() - plain)),
    )
    for name, keys in PRESETS.items()
  )


def _downloads() -> tuple[tuple[str, ...], Rows]:
  folder = f'{default.get_config().data.data_dir}/files'
  return ('source', 'command'), (
    (name, _code([downloads.data_command(row.repository, f'{folder}/{name}')]))
    for name, row in SOURCES.items()
    if row.repository is not None
  )


def _models() -> tuple[tuple[str, ...], Rows]:
  """Models of the recipes, with the configs that read them."""
  readers: dict[str, list[str]] = {}
  for name in listing.configs():
    module = importlib.import_module(f'dppo_jax.configs.{name}')
    config = module.get_config()
    for folder in (config.model.pretrained, config.rewards.model):
      if folder:
        readers.setdefault(folder, []).append(name)
  return ('recipe', 'command'), (
    (_code(names), _code([downloads.advice(folder).removeprefix('get it: ')]))
    for folder, names in readers.items()
  )


def _verdicts(figure: str) -> tuple[tuple[str, ...], Rows]:
  return ('claim', 'verdict', 'seeds', 'seen'), papers.claims(figure)


# Of a finding, what it says of two methods.
_WORDS = {
  'reproduced': 'more',
  'opposite': 'less',
  'not reproduced': 'alike',
  'not distinguishable': '',
}


def _fair_trial(how: str) -> tuple[tuple[str, ...], Rows]:
  """Mean differences from the reference, methods by mismatches."""
  cells: dict[str, dict[str, str]] = {}
  for claim, verdict, number, seen in papers.claims('fair_trial'):
    found = re.match(rf'(.*) earns more than .*, (.*), at {how} ', claim)
    if not found:
      continue
    mean = re.search(r'mean ([-+\d.e]+)', seen)
    parts = [f'{float(mean[1]):+.2f}'] if mean else []
    parts += [_WORDS[verdict.partition(',')[0]], f'({number})']
    row = cells.setdefault(found[1], {})
    row[found[2]] = ' '.join(part for part in parts if part)
  labels = list(dict.fromkeys(one for row in cells.values() for one in row))
  return ('method', *labels), (
    (name, *(row.get(label, '') for label in labels))
    for name, row in cells.items()
  )


def _papers(paper: str) -> tuple[tuple[str, ...], Rows]:
  statements = {'dppo': papers.DPPO, 'cppo': papers.CPPO}[paper]
  head = ('statement', 'in the paper', 'here', 'preset', 'figure', 'verdict')
  return head, (
    (
      row.what,
      row.where,
      _code(row.functions),
      _code(row.presets),
      row.figure and f'[{row.figure}](results/figures.md#{row.figure})',
      papers.verdict(row),
    )
    for row in statements
  )


_TABLES = {
  'divergences': _divergences,
  'rules': _rules,
  'verifiers': _verifiers,
  'environments': _environments,
  'advantages': _advantages,
  'presets': _presets,
  'downloads': _downloads,
  'models': _models,
}
_PARTS = {
  'config': _config,
  'fair_trial': _fair_trial,
  'flags': _flags,
  'metrics': _metrics,
  'papers': _papers,
  'verdicts': _verdicts,
}
_IN_WORDS = (
  'models',
  'papers',
  'verdicts',
  'fair_trial',
)  # Tables whose first column is prose.
