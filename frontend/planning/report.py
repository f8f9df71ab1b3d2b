"""What `plan` foretells of a cluster, in tables and a sentence, from how fast its parts are.

How large weights and unrolls are `experiment.py --mode=sizes` says, on this machine; no host is
asked.
"""

import json
import math

from common import texts
from frontend import asking
from frontend.errors import HostError
from frontend.planning import measured, traffic

# Flags of the frontend that ask for a prediction, with an example of each.
SPEED_FLAGS = {
  'network_gbit': '10 (Gbit/s of the link of each host)',
  'actor_frames_per_sec': '4000 (frames/s of one actor task)',
  'update_secs': '0.5 (seconds of computing for one update of one learner)',
}


def asked(options):
  """Whether a flag asks for a prediction."""
  given = [getattr(options, name) is not None for name in SPEED_FLAGS]
  return any(given) or bool(options.speeds_from)


def prediction(console):
  """The prediction as text.

  Args:
    console: `frontend.console.Console`; its options have SPEED_FLAGS, None where not given, and
      `speeds_from`, the folder of a run or ''.

  Raises:
    ValueError: bad input, in one sentence.
    HostError: the sizes could not be told on this machine.
  """
  given, folder = _given_speeds(console.options), console.options.speeds_from
  found = measured.speeds(folder) if folder else {}
  taken = {name: value for name, value in found.items() if name not in given}
  given |= taken
  actors = [task for task in console.cluster.tasks if task.job == 'actor']
  chief = next(task for task in console.cluster.tasks if task.job == 'learner')
  cells = dict.fromkeys(tuple(task.flags) for task in (chief, *actors))
  sizes = {cell: _sizes([*console.training_flags, *cell]) for cell in cells}
  run_sizes = sizes[tuple(chief.flags)]
  there = traffic.places(
    console.cluster,
    [
      (sizes[tuple(a.flags)]['envs_per_actor'], sizes[tuple(a.flags)]['num_actors']) for a in actors
    ],
  )
  run = traffic.Run(
    unroll_frames=run_sizes['unroll_length'] * run_sizes['num_action_repeats'],
    **{name: run_sizes[name] for name in traffic.Run._fields if name != 'unroll_frames'},
  )
  speeds = traffic.Speeds(
    given.get('network_gbit', math.inf) * 1e9 / 8,
    given.get('actor_frames_per_sec', math.inf),
    given.get('update_secs', 0.0),
  )
  foretold = traffic.predict(there, run, speeds)
  if math.isinf(foretold.updates_per_sec):
    raise ValueError(
      '--update_secs is missing: no link is in the way on these hosts, so that nothing would limit '
      f'training; give for example --update_secs={SPEED_FLAGS["update_secs"]}'
    )
  return '\n'.join(
    [
      _taken(folder, taken),
      _traffic_table(foretold, speeds.link_bytes_per_sec),
      '',
      _memory_table(there, run),
      '',
      _sentence(there, run, speeds, foretold),
    ]
  )


def _given_speeds(options):
  """{name: number} of the flags that were given; ValueError where one is not positive."""
  given = {name: getattr(options, name) for name in SPEED_FLAGS}
  given = {name: value for name, value in given.items() if value is not None}
  for name, value in given.items():
    if not (math.isfinite(value) and value > 0):
      raise ValueError(
        f'--{name}={value:g} is not a positive number: write for example '
        f'--{name}={SPEED_FLAGS[name]}'
      )
  return given


def _taken(folder, speeds):
  """What was taken from a run, as a line; '' where nothing was."""
  words = ' '.join(f'--{name}={value:.4g}' for name, value in speeds.items())
  return f'\nfrom the run in {folder}: {words}\n' if words else ''


def _sizes(flags):
  """What `experiment.py --mode=sizes` says of these flags, a dict."""
  code, printed, said = asking.experiment([*flags, '--mode=sizes'])
  reason = said or f'exit {code}'
  if code == 2:
    raise ValueError(reason)
  try:
    if code == 0:
      return json.loads(printed.splitlines()[-1])
  except (ValueError, IndexError):
    reason = 'its answer is not JSON'
  raise HostError('', f'experiment.py --mode=sizes failed on this machine: {reason}')


# Text.


def _traffic_table(foretold, link):
  ways = [(kind, way) for kind in traffic.KINDS for way in ('in', 'out')]
  shares = math.isfinite(link)
  head = ['MB/s of host', *(f'{kind} {way}' for kind, way in ways)]
  rows = [head + ['link in', 'link out'] * shares]
  for host, rates in foretold.bytes_per_sec.items():
    cells = [_mbytes(rates[kind][way == 'out']) for kind, way in ways]
    if shares:
      totals = [sum(rates[kind][i] for kind in traffic.KINDS) for i in (0, 1)]
      cells += [f'{total / link:.0%}' for total in totals]
    rows.append([host, *cells])
  return texts.layout(rows)


def _memory_table(there, run):
  size = _mbytes(traffic.ps_bytes(there, run))
  rows = [['ps', 'host', 'MB of weights and slots']]
  for index, host in enumerate(there.ps):
    rows.append([f'ps-{index}', host, size])
  return texts.layout(rows)


def _mbytes(size):
  return f'{size / 1e6:,.2f}' if size else '-'


def _sentence(there, run, speeds, foretold):
  spent = (
    f'{speeds.update_secs:.3g} s computing, {foretold.weights_secs:.3g} s weights, '
    f'{foretold.gradients_secs:.3g} s gradients'
  )
  one = 'an update' if run.sync_learners else 'an update of one learner'
  parts = [
    f'{_name(foretold)} first: {foretold.updates_per_sec:.3g} updates/s, '
    f'{foretold.frames_per_sec:,.0f} frames/s ({one} without waiting: {spent})'
  ]
  if math.isfinite(speeds.actor_frames_per_sec):
    parts.append(_of_actors(there, run, speeds, foretold.limit))
  more = traffic.next_limit(there, run, speeds)
  parts.append(
    f'from {more[0]} learners on (the same parameter servers, all else on hosts of its own) '
    f'{_name(more[1])}'
    if more
    else f'up to {traffic.MOST} learners that stays so'
  )
  return '; '.join(parts)


def _of_actors(there, run, speeds, limit):
  enough = traffic.enough_actors(there, run, speeds)
  if not enough:
    return f'more actors help, up to {traffic.MOST} a learner and beyond'
  count = f'{enough[0]} actor{"s" * (enough[0] > 1)} a learner'
  if limit == traffic.ACTORS:
    return f'from {count} on {_name(enough[1])}'
  return f'{count} would be enough'


def _name(foretold):
  """What bends, as the beginning of a clause."""
  if foretold.limit == traffic.ACTORS:
    return 'the actors bend'
  if foretold.limit == traffic.COMPUTING:
    return "the learners' computing bends"
  if isinstance(foretold.host, tuple):
    return f'the link of the host of a new {foretold.host[0]} bends'
  return f'the link of host {foretold.host} bends'
