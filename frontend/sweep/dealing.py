"""Which host gets which run: a pure function of what the hosts said when they were last asked."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from frontend.host_side.sweep_folder import Run


class Place(NamedTuple):
  """A folder of runs, of one host or of several that share it.

  Attributes:
    slots: runs at a time, of all its hosts together.
    speed: of a run there, in any unit; 0 if it is not known yet.
    running: what is left of the runs that run there, as a number of whole runs.
  """

  slots: int
  speed: float = 0.0
  running: float = 0.0


def deal(
  runs: Sequence[Run],
  states: Mapping[str, str],
  begun: Collection[str],
  places: Mapping[str, Place],
  given_up: Collection[str] = (),
) -> dict[str, str]:
  """Returns {run: its place}, so that all places end at about the same time.

  A run stays where it is unless that would make its place late: then the last ones move. A run that
  has a checkpoint stays with it. Runs of a place that did not answer stay there, unless given up.

  Args:
    runs: all runs, in the order in which they are started.
    states: {run: its state, see `sweep_folder.STATES`}.
    begun: runs that wait and have a checkpoint at their place.
    places: those that answered.
    given_up: runs of places that did not answer, and that are dealt anew all the same.
  """
  given = {run.name: run.place for run in runs}
  free = [
    run.name
    for run in runs
    if (run.place in places and states[run.name] == 'waiting' and run.name not in begun)
    or run.place == ''
    or run.name in given_up
  ]
  if not places:
    return given
  loads = {name: place.running for name, place in places.items()}
  for run in runs:
    if run.place in places and run.name in begun and states[run.name] == 'waiting':
      loads[run.place] += 1
  shares = _shares(len(free), loads, places)
  moving = []
  for name in free:
    if shares.get(given[name], 0) > 0:
      shares[given[name]] -= 1
    else:
      moving.append(name)
  return given | dict(zip(moving, _by_turns(shares)))


def _shares(count: int, loads: dict[str, float], places: Mapping[str, Place]) -> dict[str, int]:
  """Returns how many of `count` runs each place gets; each goes where it would end first."""
  known = [place.speed for place in places.values() if place.speed]
  usual = sum(known) / len(known) if known else 1.0
  rates = {name: place.slots * (place.speed or usual) for name, place in places.items()}
  shares = dict.fromkeys(places, 0)
  for _ in range(count):
    best = min(places, key=lambda name: (loads[name] + shares[name] + 1) / rates[name])
    shares[best] += 1
  return shares


def _by_turns(shares: Mapping[str, int]) -> list[str]:
  """Returns each place as often as it has runs, the places in turn."""
  turns = [(number, name) for name, count in shares.items() for number in range(count)]
  order = {name: at for at, name in enumerate(shares)}
  return [name for _, name in sorted(turns, key=lambda turn: (turn[0], order[turn[1]]))]
