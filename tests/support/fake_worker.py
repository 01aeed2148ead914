"""Stands in for experiments.worker: does what the config of a job says."""

import json
import os
import pathlib
import signal
import sys
import time

for line in sys.stdin:
  request = json.loads(line)
  what = request['config']['what']
  folder = pathlib.Path(request['folder'])
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'attempts').open('a').write(f'{os.getpid()}\n')
  if what == 'dies':
    os._exit(3)
  if what == 'waits':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (folder / 'waiting').touch()
    time.sleep(600)
  if what == 'fine':
    facts = {'wall_s': 1.0, 'cpu_s': 0.5, 'device': 'none'}
    (folder / 'job.json').write_text(json.dumps(facts))
  error = 'ValueError: it is bad' if what == 'bad' else ''
  print(json.dumps({'error': error}), flush=True)
