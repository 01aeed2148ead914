"""Builds the site of docs/: python -m experiments.docs --out=site.

Notebooks are executed, unless cached outputs of the same cells, code and
configs exist. --noexecute shows the others without outputs.
"""

import pathlib

from absl import app, flags

from dppo_jax.experiments.docs import notebooks, site

_OUT = flags.DEFINE_string('out', 'site', 'Folder of the site.')
_EXECUTE = flags.DEFINE_bool('execute', True, 'Execute changed notebooks.')
_ROOT = pathlib.Path(__file__).resolve().parents[2]


def main(argv: list[str]) -> int:
  """Builds and checks; returns the exit code, 1 if a link is broken."""
  del argv
  missing = [
    name
    for name in notebooks.names(_ROOT)
    if _EXECUTE.value and notebooks.kept(_ROOT, name) is None
  ]
  if missing:
    with notebooks.open_kernel(_ROOT) as kernel:
      for name in missing:
        print(f'notebooks/{name}.ipynb', flush=True)
        notebooks.keep(_ROOT, name, notebooks.execute(_ROOT, name, kernel))
  out = pathlib.Path(_OUT.value).absolute()
  site.build(_ROOT, _ROOT / 'build/docs', out)
  broken = site.problems(out)
  for line in broken:
    print(f'error: {line}')
  pages = len(list(out.rglob('*.html')))
  print(f'{pages} pages, {len(broken)} broken links: {out}/index.html')
  return int(bool(broken))


if __name__ == '__main__':
  app.run(main)
