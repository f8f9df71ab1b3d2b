"""The prediction of `plan`: tables of traffic and memory, and a sentence about the bottleneck.

The sizes of weights and unrolls come from `experiment.py --mode=sizes` on this machine; no host is
asked.
"""

import json
import math
from typing import Any

from common import texts
from frontend import checkout
from frontend.connection import hosts
from frontend.console import Console
from frontend.errors import HostError, UserError
from frontend.planning import measured, traffic

# {flag that asks for a prediction: an example of its value, with the unit}.
SPEED_FLAGS = {
  'network_gbit': '10 (Gbit/s of the link of each host)',
  'actor_frames_per_sec': '4000 (frames/s of one actor task)',
  'update_secs': '0.5 (seconds of computing for one update of one learner)',
}


def is_asked_for(options: Any) -> bool:
  """Whether a flag asks for a prediction."""
  given = [getattr(options, name) is not None for name in SPEED_FLAGS]
  return any(given) or bool(options.speeds_from)


def prediction(console: Console) -> str:
  """Returns the prediction as text, from the SPEED_FLAGS and --speeds_from.

  Raises:
    UserError: bad input.
    HostError: experiment.py could not compute the sizes on this machine.
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
  placement = traffic.placement_of(
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
  predicted = traffic.predict(placement, run, speeds)
  if math.isinf(predicted.updates_per_sec):
    raise UserError(
      '--update_secs is missing: no link is in the way on these hosts, so that nothing would limit '
      f'training; give for example --update_secs={SPEED_FLAGS["update_secs"]}'
    )
  return '\n'.join(
    [
      _taken(folder, taken),
      _traffic_table(predicted, speeds.link_bytes_per_sec),
      '',
      _memory_table(placement, run),
      '',
      _sentence(placement, run, speeds, predicted),
    ]
  )


def _given_speeds(options: Any) -> dict[str, float]:
  """{name: number} of the SPEED_FLAGS that were given; UserError if one is not positive."""
  given = {name: getattr(options, name) for name in SPEED_FLAGS}
  given = {name: value for name, value in given.items() if value is not None}
  for name, value in given.items():
    if not (math.isfinite(value) and value > 0):
      raise UserError(
        f'--{name}={value:g} is not a positive number: write for example '
        f'--{name}={SPEED_FLAGS[name]}'
      )
  return given


def _taken(folder: str, speeds: dict[str, float]) -> str:
  """A line about the speeds taken from a run; '' if none were."""
  words = ' '.join(f'--{name}={value:.4g}' for name, value in speeds.items())
  return f'\nfrom the run in {folder}: {words}\n' if words else ''


def _sizes(flags: list[str]) -> dict[str, Any]:
  """What `experiment.py --mode=sizes` prints for these flags."""
  code, printed, error = checkout.run_experiment(hosts.CODE, [*flags, '--mode=sizes'])
  reason = error or f'exit {code}'
  if code == 2:
    raise UserError(reason)
  try:
    if code == 0:
      return json.loads(printed.splitlines()[-1])
  except (ValueError, IndexError):
    reason = 'its answer is not JSON'
  raise HostError('', f'experiment.py --mode=sizes failed on this machine: {reason}')


# ---- Text. ---------------------------------------------------------------------------------------


def _traffic_table(predicted: traffic.Prediction, link: float) -> str:
  ways = [(kind, way) for kind in traffic.KINDS for way in ('in', 'out')]
  shares = math.isfinite(link)
  head = ['MB/s of host', *(f'{kind} {way}' for kind, way in ways)]
  rows = [head + ['link in', 'link out'] * shares]
  for host, rates in predicted.bytes_per_sec.items():
    cells = [_mbytes(rates[kind][way == 'out']) for kind, way in ways]
    if shares:
      totals = [sum(rates[kind][i] for kind in traffic.KINDS) for i in (0, 1)]
      cells += [f'{total / link:.0%}' for total in totals]
    rows.append([str(host), *cells])
  return texts.layout(rows)


def _memory_table(placement: traffic.Placement, run: traffic.Run) -> str:
  size = _mbytes(traffic.ps_bytes(placement, run))
  rows = [['ps', 'host', 'MB of weights and slots']]
  for index, host in enumerate(placement.ps):
    rows.append([f'ps-{index}', str(host), size])
  return texts.layout(rows)


def _mbytes(size: float) -> str:
  return f'{size / 1e6:,.2f}' if size else '-'


def _sentence(
  placement: traffic.Placement,
  run: traffic.Run,
  speeds: traffic.Speeds,
  predicted: traffic.Prediction,
) -> str:
  spent = (
    f'{speeds.update_secs:.3g} s computing, {predicted.weights_secs:.3g} s weights, '
    f'{predicted.gradients_secs:.3g} s gradients'
  )
  one = 'an update' if run.sync_learners else 'an update of one learner'
  parts = [
    f'the bottleneck is {_name(predicted)}: {predicted.updates_per_sec:.3g} updates/s, '
    f'{predicted.frames_per_sec:,.0f} frames/s ({one} without waiting: {spent})'
  ]
  if math.isfinite(speeds.actor_frames_per_sec):
    parts.append(_about_actors(placement, run, speeds, predicted.bottleneck))
  more = traffic.next_bottleneck(placement, run, speeds)
  parts.append(
    f'from {more[0]} learners on (the same parameter servers, all else on hosts of its own) it is '
    f'{_name(more[1])}'
    if more
    else f'up to {traffic.MOST} learners that stays so'
  )
  return '; '.join(parts)


def _about_actors(
  placement: traffic.Placement, run: traffic.Run, speeds: traffic.Speeds, bottleneck: str
) -> str:
  enough = traffic.enough_actors(placement, run, speeds)
  if not enough:
    return f'more actors help, up to {traffic.MOST} per learner and beyond'
  count = f'{enough[0]} actor{"s" * (enough[0] > 1)} per learner'
  if bottleneck == traffic.ACTORS:
    return f'from {count} on it is {_name(enough[1])}'
  return f'{count} would be enough'


def _name(predicted: traffic.Prediction) -> str:
  """The bottleneck in words."""
  if predicted.bottleneck == traffic.ACTORS:
    return 'acting'
  if predicted.bottleneck == traffic.COMPUTING:
    return "the learners' computing"
  if isinstance(predicted.host, tuple):
    return f'the link of the host of a new {predicted.host[0]}'
  return f'the link of host {predicted.host}'
