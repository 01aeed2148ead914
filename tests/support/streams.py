"""Runs Python with its own words apart from those of native libraries.

python -m tests.support.streams DESCRIPTOR MODULE ARGUMENTS…
python -m tests.support.streams DESCRIPTOR -c CODE ARGUMENTS…

Compiled libraries write to descriptors 1 and 2, at any moment and in any
number of pieces; Python writes to sys.stdout and sys.stderr. Here both of
these keep the descriptors that the parent gave, under other numbers, and 1 and
2 become the file of DESCRIPTOR. So what the parent reads was written by
Python alone, whatever a library says and however a busy machine tears it.
"""

import os
import runpy
import sys


def _keep(stream, descriptor):
  """`stream`, on a copy of its descriptor that no child inherits."""
  stream.flush()
  return os.fdopen(
    os.dup(descriptor), 'w', buffering=1, encoding=stream.encoding
  )


def main():
  """Runs the module as `python -m` does, or the code as `python -c`."""
  _, descriptor, module, *arguments = sys.argv
  sys.stdout, sys.stderr = _keep(sys.stdout, 1), _keep(sys.stderr, 2)
  for number in (1, 2):
    os.dup2(int(descriptor), number)
  os.close(int(descriptor))
  sys.argv = [module, *arguments]
  if module == 'experiments.train':  # It compiles, and is killed.
    from tests.support import compilation

    compilation.write_whole_files()
  if module != '-c':
    runpy.run_module(module, run_name='__main__', alter_sys=True)
    return
  code = sys.argv.pop(1)
  exec(compile(code, '<string>', 'exec'), {'__name__': '__main__'})


if __name__ == '__main__':
  main()
