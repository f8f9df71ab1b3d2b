"""Measures the speed-up by more learners over a network of a given speed.

  sudo .venv/bin/python benchmarks/scaling.py --out=docs/results/scaling/scaling.csv

Each learner and each actor has a host with its own link to a switch (network namespaces, shaped by
tbf). Parameter servers are either one with its own host, or one on the host of each learner. The
processes, gRPC, weights and unrolls are real; only computation is replaced by waiting
(`waiting_experiment.py`), since all hosts share the processors of one machine. If these are busy
(`busy`, a share of their time), the machine is the bottleneck and not the network. With --slower=8,
links are slower and computation takes longer by that factor, and a second is reported as an eighth:
each core then does eight times as much per second, so that 8 learners on two cores have what two
cores for each would do (time dilation, Gupta et al., NSDI 2006).

  speed_up          batches per second, divided by those of one learner of the same kind
  mbytes_per_update sent and received by the busiest host, divided by the updates of that time
"""

import argparse
import csv
import itertools
import os
import shutil
import sys
import tempfile
import time

from clusters import (
  GIVE_UP_SECS,
  ROOT,
  ShapedNetwork,
  Supervised,
  exit_on_sigterm,
  write_rows,
)

sys.path.insert(0, ROOT)

from runtime.processors import ProcessorUse

WARM_UP_UPDATES, BATCH_SIZE, ENVS = 5, 4, 8
PORT = 9000
COLUMNS = (
  'agent gbit update_ms sync learners ps updates_per_sec batches_per_sec speed_up '
  'mbytes_per_update busiest_link busy slower'
).split()


def commands(network, folder, learners, servers, flags, waiting):
  """Returns command lines by task; learner i is on host i, its actor on host `learners` + i."""
  places = {
    'ps': [2 * learners] if servers == 1 and learners > 1 else list(range(servers)),
    'learner': list(range(learners)),
    'actor': [learners + i for i in range(learners)],
  }
  port = {'ps': PORT, 'learner': PORT + 1, 'actor': PORT + 2}
  lists = [
    f'--{job}_hosts=' + ','.join(f'{network.address(host)}:{port[job]}' for host in hosts)
    for job, hosts in places.items()
  ]
  program = [sys.executable, os.path.join(ROOT, 'benchmarks', 'waiting_experiment.py'), *waiting]
  return {
      f'{job}-{i}': [
          *network.inside(host), *program, *lists, f'--job_name={job}', f'--task={i}',
          f'--logdir={folder}/run', f'--state_dir={folder}/state', *flags,
      ]
      for job, hosts in places.items() for i, host in enumerate(hosts)
  }  # fmt: skip


def next_update(cluster):
  """Returns (time, updates) of the first row of metrics.csv after the next update.

  Rows are much denser than updates that take seconds, so its time is nearly that of the update.
  """
  before = int(cluster.metrics()[-1]['updates'])

  def row():
    return next((row for row in cluster.metrics() if int(row['updates']) > before), None)

  cluster.wait(row, 'another update')
  found = row()
  return float(found['time']), int(found['updates'])


def measure(agent, gbit, update_ms, sync, learners, servers, secs, slower):
  """Measures one combination; returns its row without the speed-up."""
  flags = [
      '--level_name=PongNoFrameskip-v4', f'--agent_name={agent}', f'--batch_size={BATCH_SIZE}',
      f'--envs_per_actor={ENVS}', '--num_actors=1', '--dynamic_batching=false', '--threads=2',
      f'--metrics_secs={min(1, slower / 5)}', '--save_checkpoint_secs=100000',
      f'--sync_learners={"true" if sync else "false"}', '--total_environment_frames=1000000000',
  ]  # fmt: skip
  # Actors make three times of what their learners take.
  update_secs = update_ms / 1000 * slower
  waiting = [str(update_secs), str(update_secs * ENVS / BATCH_SIZE / 3)]
  folder = tempfile.mkdtemp(prefix='scaling')
  network = ShapedNetwork(2 * learners + 1, gbit, slower)
  cluster = Supervised(folder, {'ps': servers, 'learner': learners, 'actor': learners}, flags)
  try:
    network.start()
    cluster.commands = commands(network, folder, learners, servers, flags, waiting)
    limit_secs = GIVE_UP_SECS + 4 * WARM_UP_UPDATES * update_secs
    cluster.wait(
      lambda: cluster.frames() and cluster.rows()[-1][2] > WARM_UP_UPDATES, 'updates', limit_secs
    )
    before, bytes_before = next_update(cluster), _carried(network, learners)
    processors = ProcessorUse()
    until = time.monotonic() + secs * slower
    cluster.wait(lambda: time.monotonic() > until, 'the time to measure', 2 * secs * slower)
    after, bytes_after = next_update(cluster), _carried(network, learners)
    busy = processors.share()
    if any(n > 1 for n in cluster.starts.values()):
      raise SystemExit(f'a task died meanwhile; logs are in {folder}')
    exit_codes = cluster.finish()
  finally:
    cluster.kill_all()
    network.close()
  if any(exit_codes.values()):
    raise SystemExit(f'not all tasks left well: {exit_codes}; logs are in {folder}')
  shutil.rmtree(folder)
  elapsed, updates = (after[0] - before[0]) / slower, after[1] - before[1]
  links = [[b - a for a, b in zip(*way)] for way in zip(bytes_before, bytes_after)]
  busiest = max(links, key=max)
  return dict(
      agent=agent, gbit=gbit, update_ms=update_ms, sync=sync, learners=learners, ps=servers,
      updates_per_sec=round(updates / elapsed, 3),
      batches_per_sec=round(updates / elapsed * (learners if sync else 1), 3),
      mbytes_per_update=round(sum(busiest) / updates / 1e6, 2),
      busiest_link=round(max(busiest) * 8 / elapsed / gbit / 1e9, 3), busy=round(busy, 2),
      slower=slower,
  )  # fmt: skip


def _carried(network, learners):
  return [network.carried_bytes(host) for host in range(2 * learners + 1)]


def draw(rows, path):
  """Draws speed-up over learners, with a line for every kind of row.

  Args:
    rows: dicts of COLUMNS, as read from a table.
    path: of the picture.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  alike = ('agent', 'gbit', 'update_ms', 'sync', 'slower')
  lines = {}
  for row in rows:
    shared = row['ps'] == '1' and row['learners'] != '1'
    lines.setdefault((*(row[name] for name in alike), shared), []).append(row)
  figure = Figure(figsize=(11, 6), layout='constrained')
  FigureCanvasAgg(figure)
  axis = figure.subplots()
  most = max(int(row['learners']) for row in rows)
  axis.plot([1, most], [1, most], '--', color='grey', label='without any loss')
  kinds = [kind for kind, of in lines.items() if any(row['learners'] != '1' for row in of)]
  # The legend is in the order in which the lines end.
  kinds.sort(key=lambda kind: -max(float(row['speed_up']) for row in lines[kind]))
  for number, kind in enumerate(kinds):
    agent, gbit, update_ms, sync, slower, shared = kind
    points = {(1, 1.0), *((int(row['learners']), float(row['speed_up'])) for row in lines[kind])}
    axis.plot(
      *zip(*sorted(points)),
      marker='os^'[number // 10 % 3],
      linestyle=':' if shared else '-',
      label=f'{agent}, {gbit} Gbit/s, {update_ms} ms, {"one ps" if shared else "a ps each"}'
      + ('' if sync == 'True' else ', each on its own')
      + ('' if slower == '1' else f', {slower} times slower'),
    )
  axis.set_xlabel('learners')
  axis.set_ylabel('speed-up')
  axis.grid(alpha=0.3)
  figure.legend(loc='outside right', fontsize='small')
  figure.savefig(path, dpi=100)


def draw_table(path):
  """Draws the rows of a CSV file beside it."""
  with open(path, newline='') as file:
    draw(list(csv.DictReader(file)), os.path.splitext(path)[0] + '.png')


def numbers(text):
  """'1,2,0.25' -> [1, 2, 0.25]."""
  return [int(word) if word.isdigit() else float(word) for word in text.split(',')]


def main():
  """Measures all combinations, prints and writes them."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--agents', default='SimpleConvNetAgent,ResNetLSTMAgent')
  parser.add_argument('--gbit', type=numbers, default=[1, 10], help='1,10')
  parser.add_argument('--update_ms', type=numbers, default=[100, 250, 1000], help='100,250,1000')
  parser.add_argument('--learners', type=numbers, default=[1, 2, 4, 8], help='1,2,4,8')
  parser.add_argument('--ps', default='one,each', help='one, and one for each learner')
  parser.add_argument('--sync', default='true,false', help='true,false')
  parser.add_argument('--secs', type=float, default=20, help='seconds per combination')
  parser.add_argument('--slower', type=float, default=1, help='factor, see above')
  target = parser.add_mutually_exclusive_group(required=True)
  target.add_argument('--out', help='CSV file; a picture of the same name lies beside it')
  target.add_argument('--draw', metavar='CSV', help='draw a table again, and measure nothing')
  args = parser.parse_args()
  if args.draw:
    draw_table(args.draw)
    return
  exit_on_sigterm()
  if os.getuid():
    sys.exit('network namespaces need root: sudo .venv/bin/python benchmarks/scaling.py ...')
  missing = [name for name in ('ip', 'tc') if not shutil.which(name)]
  if missing:
    sys.exit(f'{", ".join(missing)} is not installed: sudo apt-get install iproute2')
  os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
  rows, alone = [], {}
  kinds = itertools.product(
    args.agents.split(','), args.gbit, args.update_ms, args.sync.split(','), args.learners,
    args.ps.split(','),
  )  # fmt: skip
  for agent, gbit, update_ms, sync, learners, ps in kinds:
    servers = 1 if ps == 'one' else learners
    if learners == 1 and ps != args.ps.split(',')[0]:
      continue  # One parameter server is one for each.
    row = measure(agent, gbit, update_ms, sync == 'true', learners, servers, args.secs, args.slower)
    first = alone.setdefault((agent, gbit, update_ms, sync), row['batches_per_sec'])
    rows.append({**row, 'speed_up': round(row['batches_per_sec'] / first, 2)})
    print({name: rows[-1][name] for name in COLUMNS}, flush=True)
    write_rows(args.out, rows, COLUMNS)
  draw_table(args.out)


if __name__ == '__main__':
  main()
