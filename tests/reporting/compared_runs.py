"""Folders of runs for tests of comparisons, and plot_runs.py in this process."""

import json

import plot_runs

COLUMNS = 'time,environment_frames,frames_per_sec,mean_return_100'
START = '1970-01-01T00:00:00+00:00'


def a_run(folder, returns, frames=(100, 200, 300), starts=(START,), times=None, **flags):
  """A run's folder with run.json and metrics.csv; a row takes 1800 s."""
  folder.mkdir()
  flags = {'level_name': 'A-v0', 'agent_name': 'MLPAgent', 'seed': 1, **flags}
  record = {'started': starts[-1], 'flags': flags, 'starts': [{'started': s} for s in starts[:-1]]}
  (folder / 'run.json').write_text(json.dumps(record))
  times = times or [1800 * (i + 1) for i in range(len(frames))]
  rows = [f'{t},{f},{10 * (i + 1)},{r}' for i, (t, f, r) in enumerate(zip(times, frames, returns))]
  (folder / 'metrics.csv').write_text('\n'.join([COLUMNS, *rows]) + '\n')
  return str(folder)


def run_main(capsys, *arguments):
  code = plot_runs.main([str(argument) for argument in arguments])
  out, err = capsys.readouterr()
  return code, out, err
