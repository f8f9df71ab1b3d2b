"""What a person does with a trained run: test, video, export and plot, each to its result."""

import os
import sys

from absl import logging

from common import files
from evaluation import protocols
from reporting import commands
from roles import resuming
from roles import settings as settings_lib
from runtime import checkpoints, locks, process
from runtime.checkpoints import Checkpoints
from runtime.process import BadInput, RunFailed

_MOST_CHOICES = 10


def test(options, choice, num_episodes, protocol, deterministic):
  """Plays whole games with a checkpoint of a run and adds them to evaluation.json.

  Args:
    options: `roles.settings.Options`.
    choice: which checkpoint, see `runtime.checkpoints.is_choice`.
    num_episodes: games to play.
    protocol: a key of `evaluation.protocols.PROTOCOLS`.
    deterministic: whether to take the likeliest action; else it is sampled.

  Raises:
    BadInput: there is no such run or checkpoint, or it cannot be played so.
    RunFailed: told to stop; then the games that have ended are written.
  """
  from evaluation import records

  interrupts = process.Interrupts()
  recorded, _ = resuming.as_recorded(options)
  overrides = protocols.atari_overrides(protocol, recorded.shared['level_name'])
  settings, folder = _trained_run(options, 'test', choice)
  records.read(folder)  # Whether there is room for another is known before it is played.
  unwritable = files.why_not_written(folder)
  if unwritable:
    logging.warning('%s cannot be written (%s): the result is only printed', folder, unwritable)
  most_frames = _most_frames(settings, options.max_episode_frames)
  process.import_tensorflow()

  def play(checkpoint):
    frames = int(Checkpoints.value(checkpoint, 'environment_frames'))
    games = _play(
      checkpoint,
      settings,
      num_episodes,
      overrides,
      deterministic,
      interrupts.is_set,
      options.threads,
      most_frames,
    )
    return checkpoint, frames, games

  checkpoint, frames, games = with_checkpoint(folder, choice, play)
  _check_any_played(interrupts, games.scores)
  result = {
    **protocols.described(protocol, settings.num_actions),
    **dict(deterministic=deterministic, seed=settings.seed),
    **dict(checkpoint_choice=choice, checkpoint_frames=frames),
    **records.summary(settings.level_name, games, settings.num_action_repeats),
    **records.endings(games, most_frames, _most_steps(settings, most_frames)),
  }
  try:
    print(records.add(folder, result, checkpoint), flush=True)
  except OSError as e:  # The games were played: what they were worth is told in any case.
    print(f'{records.line(result)}; written nowhere', flush=True)
    if not unwritable:
      raise RunFailed(f'{folder}: the evaluation cannot be written: {e.strerror}') from None
  if not games.complete:
    raise RunFailed(f'{interrupts.reason}: {len(games.scores)} of {num_episodes} games were played')


def _most_frames(settings, asked):
  import environments

  return environments.most_frames(settings.level_name, settings.num_action_repeats, asked)


def _most_steps(settings, most_frames):
  """Agent steps of a game that is cut off; an Atari game may be with a few more, for its no-ops."""
  import environments

  return environments.most_steps(settings.level_name, settings.num_action_repeats, most_frames)


def _tell(line):
  print(line, file=sys.stderr, flush=True)


def _play(
  checkpoint, settings, num_episodes, overrides, deterministic, should_stop, threads, most_frames
):
  """`evaluation.play.GameCollector` of games in an environment of their own."""
  import tensorflow as tf

  import environments
  import nets  # noqa: F401 (Sonnet has to be imported outside of any graph)
  from evaluation import play

  with tf.Graph().as_default():
    tf.compat.v1.set_random_seed(settings.seed)
    batch = environments.create_environment(
      settings.level_name,
      min(num_episodes, play.MAX_ENVIRONMENTS),
      settings_lib.derived_seed(settings.seed, 20_000),
      settings.num_action_repeats,
      settings.width,
      settings.height,
      overrides,
      most_frames,
    )
    try:
      return play.play(
        checkpoint,
        settings.agent_name,
        settings,
        num_episodes,
        batch,
        should_stop,
        deterministic,
        threads,
        lambda line: _tell(f'{line} of at most {_most_steps(settings, most_frames)}'),
      )
    finally:
      batch.close()


def video(options, choice, num_episodes, annotate, deterministic):
  """Films whole games of a checkpoint of a run.

  Args:
    options: `roles.settings.Options`.
    choice: as for `test`.
    num_episodes: games to film.
    annotate: whether it is shown what the agent sees, expects and intends.
    deterministic: whether to take the likeliest action; else it is sampled.

  Raises:
    BadInput: there is no such run or checkpoint, it cannot be rendered, or another process films
      it.
    RunFailed: told to stop; then the film ends after a game at least, or there is none. Or the
      disk.
  """
  interrupts = process.Interrupts()
  settings, folder = _trained_run(options, 'film', choice)
  from envs import rendered

  most_frames = _most_frames(settings, options.max_episode_frames)
  seed = settings_lib.derived_seed(settings.seed, 30_000)
  try:
    game = rendered.open_game(settings, seed, most_frames)
  except ValueError as e:
    raise BadInput(f'--mode=video: {e}') from None
  try:
    process.import_tensorflow()
    from evaluation import video as video_lib

    played_as = num_episodes, annotate, deterministic, interrupts.is_set, _tell
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


def export(options, choice, defaults):
  """Writes the policy of a checkpoint of a run, with its card, to LOGDIR/export.

  Args:
    options: `roles.settings.Options`.
    choice: as for `test`.
    defaults: dict, the defaults of all flags.

  Raises:
    BadInput: there is no such run or checkpoint, its evaluation.json is none, or another process
      exports it.
    RunFailed: the disk.
  """
  from evaluation import card, records

  settings, folder = _trained_run(options, 'export', choice)
  records.read(folder)  # The card tells of it; whether it can is known before anything is made.
  record = settings_lib.record_of(folder)
  process.import_tensorflow()
  import environments
  from evaluation import export as export_lib

  target = os.path.join(folder, 'export')
  made_by = [commands.line(command.flags) for command in commands.commands(record, defaults)]
  description = dict(
    command=made_by[-1] if made_by else commands.line(settings_lib.flags_of(settings)),
    commands=made_by,
    licence='Apache-2.0',
    checkpoint_choice=choice,
  )
  atari = environments.atari_arguments(
    settings.level_name, settings.num_action_repeats, settings.width, settings.height
  )

  def write(checkpoint):
    export_lib.export(
      target,
      checkpoint,
      settings,
      atari,
      description,
      lambda new, policy: card.write(new, folder, policy, record, defaults),
    )

  with locks.lock_output(folder, 'export', '--logdir'):
    with_checkpoint(folder, choice, write)
  print(target)


def plot(folder):
  """Draws a run's learning_curve.png, into the working directory where its folder takes none.

  Raises:
    BadInput: there is nothing to draw.
    OSError: it cannot be written, or what is to be drawn cannot be read.
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


def _trained_run(options, purpose, choice):
  """(settings, folder), once it is known that the chosen checkpoint is there."""
  recorded, folder = resuming.as_recorded(options)
  settings = settings_lib.own_settings(recorded.shared)
  if not Checkpoints.exist(folder):
    raise BadInput(f'--logdir={folder} has no checkpoint to {purpose}; train first')
  settings_lib.check_same_run(folder, settings)
  _find(folder, choice)
  return settings, folder


def _find(folder, choice, check=False):
  path = checkpoints.find(folder, choice, f'--checkpoint={choice}', check)
  if not path:
    raise BadInput(f'--logdir={folder} has no checkpoint any more')
  return path


def with_checkpoint(folder, choice, use):
  """What a function makes of the chosen checkpoint.

  A run that still trains may delete it before it is read; then it is chosen again, and read anew.
  A last one that is damaged is passed over, with a sentence, for the one before it.

  Args:
    folder: of the run.
    choice: see `runtime.checkpoints.is_choice`.
    use: function of a path, which may be called more than once.

  Raises:
    BadInput: there is no such checkpoint (any more), or none that can be used.
    RunFailed: each was deleted, or the disk does not let them be read.
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


def _check_any_played(interrupts, scores):
  if interrupts.is_set() and not scores:
    raise RunFailed(f'{interrupts.reason}: no game has ended, nothing is written')
