"""The modes that use a trained run: test, video, export and plot."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from absl import logging

import config
from common import files
from evaluation import protocols
from reporting import commands
from roles import resuming
from roles import settings as settings_lib
from roles.settings import Options, Settings
from runtime import checkpoints, locks, process
from runtime.checkpoints import Checkpoints
from runtime.process import BadInput, RunFailed
from structs import Level, num_actions

if TYPE_CHECKING:
  from evaluation.play import GameCollector

T = TypeVar('T')

_MOST_CHOICES = 10
# Flags that evaluation.json names where they are set.
_MADE_WITH = ('env_kwargs', 'env_wrappers')


def test(options: Options, choice: str) -> None:
  """Plays whole games with a checkpoint of a run and adds them to evaluation.json.

  Args:
    options: the command's options, among them the number of games and the protocol.
    choice: which checkpoint, see `runtime.checkpoints.is_choice`.

  Raises:
    BadInput: the run or checkpoint does not exist, or does not fit the protocol.
    RunFailed: stopped by the user (finished games are recorded), or the result cannot be written.
  """
  from evaluation import records

  interrupts = process.Interrupts()
  recorded, _ = resuming.as_recorded(options)
  overrides = [
    protocols.atari_overrides(options.eval_protocol, level) for level in recorded.shared.levels
  ]
  settings, folder = _trained_run(options, 'test', choice)
  records.read(folder)  # A damaged evaluation.json is refused before games are played.
  unwritable = files.why_not_written(folder)
  if unwritable:
    logging.warning('%s cannot be written (%s): the result is only printed', folder, unwritable)
  process.import_tensorflow()

  def play(checkpoint: str):
    frames = int(Checkpoints.value(checkpoint, 'environment_frames'))
    played = []
    for level_id, level in enumerate(settings.levels):
      most_frames = _most_frames(settings, level, options.max_episode_frames)
      games = _play(
        checkpoint, settings, level_id, options, overrides[level_id], most_frames, interrupts
      )
      if games.scores:
        played.append(_summary(settings, level, games, most_frames))
        if len(settings.levels) > 1:
          _tell(records.line(played[-1]))
    return checkpoint, frames, played

  checkpoint, frames, played = with_checkpoint(folder, choice, play)
  _check_any_played(interrupts, played)
  several = len(settings.levels) > 1
  result = {
    **protocols.described(options.eval_protocol, num_actions(settings.action)),
    **dict(deterministic=options.deterministic, seed=settings.seed),
    **dict(checkpoint_choice=choice, checkpoint_frames=frames),
    **(records.summary_of_levels(settings.level_name, played) if several else played[0]),
    **{name: getattr(settings, name) for name in _MADE_WITH if getattr(settings, name)},
  }
  try:
    print(records.add(folder, result, checkpoint), flush=True)
  except OSError as e:  # The result is printed in any case.
    print(f'{records.line(result)}; written nowhere', flush=True)
    if not unwritable:
      raise RunFailed(f'{folder}: the evaluation cannot be written: {e.strerror}') from None
  asked = options.test_num_episodes * len(settings.levels)
  if len(result['returns']) < asked:
    number = len(result['returns'])
    raise RunFailed(f'{interrupts.reason}: {number} of {asked} games were played')


def _summary(
  settings: Settings, level: Level, games: GameCollector, most_frames: int
) -> dict[str, Any]:
  """Returns the entries of evaluation.json about the games of a level."""
  from evaluation import records

  return {
    **records.summary(level.name, games, settings.num_action_repeats),
    **records.endings(games, most_frames, _most_steps(settings, level, most_frames)),
  }


def _most_frames(settings: Settings, level: Level, asked: int) -> int:
  import environments

  return environments.most_frames(level, settings.num_action_repeats, asked)


def _most_steps(settings: Settings, level: Level, most_frames: int) -> int:
  """Returns the agent steps after which a game is cut off; Atari's initial no-ops may add a few."""
  import environments

  return environments.most_steps(level, settings.num_action_repeats, most_frames)


def _tell(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _play(
  checkpoint: str,
  settings: Settings,
  level_id: int,
  options: Options,
  overrides: dict[str, Any],
  most_frames: int,
  interrupts: process.Interrupts,
) -> GameCollector:
  """Plays games of a level in newly created environments."""
  import tensorflow as tf

  import environments
  import nets  # noqa: F401 (Sonnet has to be imported outside of any graph)
  from evaluation import play

  num_episodes, level = options.test_num_episodes, settings.levels[level_id]
  with tf.Graph().as_default():
    tf.compat.v1.set_random_seed(settings.seed)
    batch = environments.create_environment(
      level,
      min(num_episodes, play.MAX_ENVIRONMENTS),
      settings_lib.derived_seed(settings.seed, 20_000 + level_id),
      settings.num_action_repeats,
      settings.width,
      settings.height,
      overrides,
      most_frames,
      options.envs_per_worker,
    )
    try:
      return play.play(
        checkpoint,
        settings.agent_name,
        settings,
        num_episodes,
        batch,
        interrupts.is_set,
        options.deterministic,
        options.threads,
        lambda line: _tell(f'{line} of at most {_most_steps(settings, level, most_frames)}'),
      )
    finally:
      batch.close()


def video(options: Options, choice: str, num_episodes: int, annotate: bool) -> None:
  """Films whole games of a checkpoint of a run.

  Args:
    options: the command's options.
    choice: which checkpoint, see `runtime.checkpoints.is_choice`.
    num_episodes: number of games of each level to film.
    annotate: whether to show the agent's observation, value and action probabilities.

  Raises:
    BadInput: the run or checkpoint does not exist, the environment cannot be rendered, or another
      process is filming the run.
    RunFailed: stopped by the user (a film is written only if a game was finished), or the disk is
      full or broken.
  """
  interrupts = process.Interrupts()
  settings, folder = _trained_run(options, 'film', choice)
  game = _rendered_game(settings, options, num_episodes)
  num_episodes *= len(settings.levels)
  try:
    process.import_tensorflow()
    from evaluation import video as video_lib

    played_as = num_episodes, annotate, options.deterministic, interrupts.is_set, _tell
    with locks.lock_output(folder, 'film', '--logdir'):
      returns, frames = with_checkpoint(
        folder, choice, lambda path: video_lib.film(folder, path, settings, game, *played_as)
      )
  finally:
    game.close()
  _check_any_played(interrupts, returns)
  played = ', '.join(f'{score:g}' for score in returns)
  print(
    f'{settings.level_name}: return {played}; {frames} frames in {folder}/video.webm', flush=True
  )
  if len(returns) < num_episodes:
    raise RunFailed(f'{interrupts.reason}: {len(returns)} of {num_episodes} games were filmed')


def _rendered_game(settings: Settings, options: Options, num_episodes: int) -> Any:
  """Returns a game to film, see `rendered.open_game`; of several levels one after the other."""
  from envs import rendered

  games = []
  try:
    for level_id, level in enumerate(settings.levels):
      seed = settings_lib.derived_seed(settings.seed, 30_000 + level_id)
      most_frames = _most_frames(settings, level, options.max_episode_frames)
      games.append(rendered.open_game(settings.spec_of(level), seed, most_frames))
  except ValueError as e:
    rendered.GamesInTurn(games, num_episodes).close()
    raise BadInput(f'--mode=video: {e}') from None
  return games[0] if len(games) == 1 else rendered.GamesInTurn(games, num_episodes)


def export(options: Options, choice: str) -> None:
  """Writes the policy of a checkpoint of a run, with its card, to LOGDIR/export.

  Args:
    options: the command's options.
    choice: which checkpoint, see `runtime.checkpoints.is_choice`.

  Raises:
    BadInput: the run or checkpoint does not exist, its evaluation.json is damaged, or another
      process is exporting the run.
    RunFailed: the disk is full or broken.
  """
  from evaluation import card, records

  settings, folder = _trained_run(options, 'export', choice)
  records.read(folder)  # The model card needs it, so a damaged file is refused first.
  record = settings_lib.record_of(folder)
  process.import_tensorflow()
  import environments
  from evaluation import export as export_lib

  target = os.path.join(folder, 'export')
  defaults = {name: row.default for name, row in config.SETTINGS.items()}
  made_by = [commands.line(command.flags) for command in commands.commands(record, defaults)]
  description = dict(
    command=made_by[-1]
    if made_by
    else commands.line({n: getattr(settings, n) for n in config.SHARED_FLAGS}),
    commands=made_by,
    licence='Apache-2.0',
    checkpoint_choice=choice,
  )

  def write(checkpoint):
    export_lib.export(
      target,
      checkpoint,
      settings,
      [environments.made_by(settings.spec_of(level)) for level in settings.levels],
      description,
      lambda new, policy: card.write(new, folder, policy, record, defaults),
    )

  with locks.lock_output(folder, 'export', '--logdir'):
    with_checkpoint(folder, choice, write)
  print(target)


def plot(folder: str) -> None:
  """Draws a run's learning_curve.png, in the working directory if its folder is not writable.

  Raises:
    BadInput: the run has no metrics to draw.
    OSError: the picture cannot be written, or the metrics cannot be read.
  """
  from reporting import curves

  name = 'learning_curve.png'
  path, here = os.path.join(folder, name), f'{os.path.basename(os.path.abspath(folder))}-{name}'
  try:
    try:
      curves.plot_learning_curve(folder, path)
    except OSError as e:
      curves.plot_learning_curve(folder, here)
      path = f'{here}, since {path} cannot be written: {e.strerror}'
  except ValueError as e:
    raise BadInput(f'--logdir={folder}: {e}') from None
  print(path)


def _trained_run(options: Options, purpose: str, choice: str) -> tuple[Settings, str]:
  """Returns a run's (settings, folder) after checking that the chosen checkpoint exists."""
  recorded, folder = resuming.as_recorded(options)
  settings = settings_lib.own_settings(recorded.shared)
  if not Checkpoints.exist(folder):
    raise BadInput(f'--logdir={folder} has no checkpoint to {purpose}; train first')
  settings_lib.check_same_run(folder, settings)
  _find(folder, choice)
  return settings, folder


def _find(folder: str, choice: str, check: bool = False) -> str:
  path = checkpoints.find(folder, choice, f'--checkpoint={choice}', check)
  if not path:
    raise BadInput(f'--logdir={folder} has no checkpoint any more')
  return path


def with_checkpoint(folder: str, choice: str, use: Callable[[str], T]) -> T:
  """Calls a function with the path of the chosen checkpoint and returns its result.

  If a run in training deletes the checkpoint before it is read, chooses again. If the last
  checkpoint is damaged, takes the one before it and logs a warning.

  Args:
    folder: the run's folder.
    choice: see `runtime.checkpoints.is_choice`.
    use: function of a path; it may be called more than once.

  Raises:
    BadInput: the checkpoint does not exist (any more), or no checkpoint is usable.
    RunFailed: every chosen checkpoint was deleted, or the disk cannot be read.
  """
  for _ in range(_MOST_CHOICES):
    try:
      path = _find(folder, choice, check=True)
    except checkpoints.Gone:
      continue
    try:
      return use(path)
    except Exception:
      if checkpoints.is_whole(path):
        raise
  raise RunFailed(f'{folder}: its checkpoints are deleted before they can be read')


def _check_any_played(interrupts: process.Interrupts, played: Sequence[Any]) -> None:
  if interrupts.is_set() and not played:
    raise RunFailed(f'{interrupts.reason}: no game has ended, nothing is written')
