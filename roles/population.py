"""Population-based training, as in Appendix F of IMPALA (arXiv 1802.01561): one member's part.

A member is a run that trains in rounds of frames. At the end of a round it compares its recent mean
return with that of one other member, drawn at random. If the other's normalised score is better by
a margin, the member copies its weights, slots and settings. Copy or not, it then changes each
setting with probability 1/3 by a factor of 1.2 or 1/1.2. Its own frames and updates count on.

All that members know of each other is in their folders, which lie in one folder. Nobody waits for
anybody: a member that is missing, or has no mean return yet, is not compared with.
"""

from __future__ import annotations

import dataclasses
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging

import config
from common import files
from common.background import BackgroundCall
from reporting import lineage, scores
from reporting.lineage import Comparison
from roles.resuming import Plan
from roles.settings import Options
from runtime import checkpoint_folder
from runtime.checkpoint_folder import Saved
from runtime.process import BadInput, RunFailed, import_tensorflow

CHANGE_PROBABILITY = 1 / 3
CHANGE_FACTOR = 1.2
_ROUNDS = 20  # If --population_frames is 0.


class Rounds(NamedTuple):
  """When a member compares itself: at `burn_in` frames, and every `length` frames from there."""

  burn_in: int
  length: int

  def end_after(self, frames: int) -> int:
    """Returns the frames of the first comparison after `frames`."""
    if frames < self.burn_in:
      return self.burn_in
    return self.burn_in + self.length * ((frames - self.burn_in) // self.length + 1)


class Candidate(NamedTuple):
  """Another member, as its folder shows it.

  Attributes:
    name: name of its folder.
    checkpoint: of its kept checkpoints with a mean return, the one nearest in frames. So members
      that train one after another are compared as if they trained side by side.
    settings: the settings with which it came there.
  """

  name: str
  checkpoint: Saved
  settings: dict[str, float]


# -------------------------------------------------------------------------------------------------
# Decisions


def normalised_score(
  level_names: Sequence[str], mean_return: float, bounds: Sequence[float] = ()
) -> float | None:
  """Returns a mean return as a score; None if what counts as 0 and 1 is not known.

  Args:
    level_names: Gym ids of the run.
    mean_return: what a checkpoint is listed with, see `Records.mean_return_100`: of several levels
      with reference scores, it is their mean capped score already, as in the paper.
    bounds: [low, high], the returns that count as 0 and 1; empty for random play and the level's
      reference, which is a person's score for Atari.
  """
  if bounds:
    low, high = bounds
    return (mean_return - low) / (high - low)
  known = [scores.normalised_score(name, mean_return) for name in level_names]
  if None in known:
    return None
  return known[0] if len(known) == 1 else mean_return


def is_copied(own_score: float | None, other_score: float, margin: float) -> bool:
  """Returns whether another member is better by more than the margin, an absolute difference.

  A member whose own score is not known yet copies nobody.
  """
  return own_score is not None and other_score - own_score > margin


def changed(settings: Mapping[str, float], generator: random.Random) -> dict[str, float]:
  """Returns settings, each changed with probability 1/3 by a factor of 1.2 or 1/1.2.

  A value that the change would put out of the bounds of its setting is set to the bound.
  """
  new = {}
  for name, value in settings.items():
    if generator.random() < CHANGE_PROBABILITY:
      value = value * CHANGE_FACTOR if generator.random() < 0.5 else value / CHANGE_FACTOR
    row = config.SETTINGS[name]
    value = value if row.maximum is None else min(value, row.maximum)
    new[name] = value if row.minimum is None else max(value, row.minimum)
  return new


# -------------------------------------------------------------------------------------------------
# What the flags say


def check(options: Options) -> None:
  """Checks the flags of a member.

  Raises:
    BadInput: they contradict each other, a setting cannot be changed, or scores of the level
      cannot be normalised.
  """
  asked = f'--population_dir={options.population_dir}'
  parent = os.path.dirname(os.path.abspath(options.logdir)) if options.logdir else ''
  if not parent or os.path.realpath(parent) != os.path.realpath(options.population_dir):
    raise BadInput(f'{asked}: --logdir has to be a folder in it, one for each member')
  if not options.population_settings:
    raise BadInput(f'{asked} needs --population_settings, such as learning_rate,entropy_cost')
  for name in options.population_settings:
    row = config.SETTINGS.get(name)
    if row is None or row.type is not float or name not in config.SHARED_FLAGS or row.fixed:
      raise BadInput(
        f'--population_settings={name}: members change numbers of the training that are not whole, '
        'such as learning_rate, entropy_cost and epsilon'
      )
  if normalised_score(options.shared.level_names, 0.0, bounds(options)) is None:
    raise BadInput(
      f'{asked}: no reference score is known for {options.shared.level_name}; '
      '--population_returns=LOW,HIGH gives the mean returns whose normalised scores are 0 and 1'
    )


def bounds(options: Options) -> list[float]:
  """Returns the numbers of --population_returns, [low, high] or [].

  Raises:
    BadInput: they are no two numbers, the smaller one first.
  """
  words = options.population_returns
  try:
    values = [float(word) for word in words]
  except ValueError:
    values = [0.0]
  are_bounds = len(values) == 2 and all(map(math.isfinite, values)) and values[0] < values[1]
  if values and not are_bounds:
    raise BadInput(
      f'--population_returns={",".join(words)}: two numbers are needed, the smaller one first'
    )
  return values


def rounds(options: Options, total_frames: int) -> Rounds:
  """Returns when a member compares itself."""
  length = options.population_frames or max(1, total_frames // _ROUNDS)
  return Rounds(options.population_burn_in or length, length)


def with_current_settings(options: Options) -> Options:
  """Returns a member's options with the settings that it trains with by now.

  The command of a member names the settings that it began with.

  Raises:
    BadInput: see `check`.
  """
  if not options.population_dir:
    return options
  check(options)
  history = lineage.read(options.logdir)
  return _with(options, history[-1].settings) if history else options


def _with(options: Options, settings: Mapping[str, Any]) -> Options:
  return dataclasses.replace(
    options,
    shared=dataclasses.replace(options.shared, **settings),
    given=options.given | set(settings),
    all_flags={**options.all_flags, **settings},
  )


# -------------------------------------------------------------------------------------------------
# One comparison


def candidates(options: Options, frames: int) -> list[Candidate]:
  """Returns the other members with a checkpoint whose mean return is known, by name.

  Args:
    options: of the member that compares itself.
    frames: its environment frames.
  """
  found = []
  own = os.path.basename(os.path.abspath(options.logdir))
  for name in sorted(files.names(options.population_dir)):
    folder = os.path.join(options.population_dir, name)
    if name == own or not os.path.isdir(folder):
      continue
    try:
      saved = [saved for saved in _listed(folder) if saved.mean_return_100 is not None]
      history = lineage.read(folder)
    except RunFailed as e:
      logging.warning('%s is left out: %s', folder, e)
      continue
    if saved and history:
      # Of two that are equally near, the newer one.
      nearest = min(reversed(saved), key=lambda one: abs(one.frames - frames))
      found.append(Candidate(name, nearest, settings_at(history, nearest.frames)))
  return found


def settings_at(history: Sequence[Comparison], frames: int) -> dict[str, float]:
  """Returns the settings that led a member to its checkpoint of these frames.

  A comparison follows the checkpoint of its frames, and replaces it if another was copied.
  """
  led = [m for m in history if m.frames < frames or (m.frames == frames and m.copied)]
  return (led or history)[-1 if led else 0].settings


def _listed(folder: str) -> list[Saved]:
  """Returns the checkpoints on a run's list, the newest last."""
  found = checkpoint_folder.look(folder)
  return [saved for saved in found.written or () if saved.name in found.whole]


def compare(planned: Plan) -> Plan:
  """Compares a member with another one, if a round of it has ended.

  Writes the comparison, and the checkpoint if one is copied, into the member's folder.

  Args:
    planned: the member's run, its options from `with_current_settings`. This process has locked its
      folder.

  Returns:
    The run with the settings of the next round. The same for runs that are no members.

  Raises:
    RunFailed: the folder cannot be written.
  """
  options, folder = planned.options, planned.logdir
  if not options.population_dir:
    return planned
  own, history = next(reversed(_listed(folder)), None), lineage.read(folder)
  settings = {name: getattr(options.shared, name) for name in options.population_settings}
  frames = own.frames if own else 0
  if not history:
    lineage.write(folder, [Comparison(time.time(), frames, settings)])
    return planned
  total_frames = planned.settings.total_environment_frames
  due = rounds(options, total_frames).end_after(_compared_at(history))
  if own is None or not due <= frames < total_frames:
    return planned
  generator = random.Random(f'{options.shared.seed} {os.path.basename(folder)} {due}')
  made = _compared(options, own, settings, candidates(options, frames), generator)
  lineage.write(folder, [*history, made])
  return dataclasses.replace(
    planned,
    options=_with(options, made.settings),
    settings=dataclasses.replace(planned.settings, **made.settings),
    notices=[*planned.notices, f'{folder}: {lineage.sentence(made)}'],
  )


def _compared_at(history: Sequence[Comparison]) -> int:
  """Returns the frames of the last comparison, 0 if there was none."""
  return history[-1].frames if history[1:] else 0


def _compared(
  options: Options,
  own: Saved,
  settings: dict[str, float],
  others: Sequence[Candidate],
  generator: random.Random,
) -> Comparison:
  """Compares a member with one of the others, copies that one if it is better; the record."""
  levels, limits = options.shared.level_names, bounds(options)
  own_score = None
  if own.mean_return_100 is not None:
    own_score = normalised_score(levels, own.mean_return_100, limits)
  made = Comparison(
    time.time(), own.frames, settings, mean_return=own.mean_return_100, score=own_score
  )
  if others:
    other = generator.choice(others)
    mean_return = other.checkpoint.mean_return_100
    assert mean_return is not None
    score = normalised_score(levels, mean_return, limits)
    assert score is not None  # `check` has seen to that.
    made = made._replace(
      other=other.name,
      other_frames=other.checkpoint.frames,
      other_return=mean_return,
      other_score=score,
    )
    if is_copied(own_score, score, options.population_margin) and _copy(options, own, other):
      copied = {name: other.settings.get(name, value) for name, value in settings.items()}
      made = made._replace(copied=True, settings=copied)
  return made._replace(settings=changed(made.settings, generator))


def _copy(options: Options, own: Saved, other: Candidate) -> bool:
  """Copies the other's checkpoint; returns False if it is gone or damaged."""
  import_tensorflow()
  from runtime import copied_checkpoint

  path = os.path.join(options.population_dir, other.name, other.checkpoint.name)
  arguments = options.logdir, own, path, other.checkpoint.mean_return_100, options.keep_checkpoints
  try:
    BackgroundCall(copied_checkpoint.copy, *arguments).result()
  except copied_checkpoint.Unreadable as e:
    logging.warning('%s is not copied: %s', path, e)
    return False
  return True


def round_end(options: Options, total_frames: int) -> int | None:
  """Returns the frames at which this start of a member ends; None for other runs."""
  if not options.population_dir:
    return None
  last = _compared_at(lineage.read(options.logdir))
  return min(total_frames, rounds(options, total_frames).end_after(last))
