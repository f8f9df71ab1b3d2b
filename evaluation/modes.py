"""What a person does with a trained run: test, video and export, each from checkpoint to result."""

import os

from evaluation import protocols
from roles import settings as settings_lib
from runtime import checkpoints, process
from runtime.checkpoints import Checkpoints
from runtime.process import BadInput, RunFailed


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
    RunFailed: told to stop; then nothing is written.
  """
  from evaluation import records

  interrupts = process.Interrupts()
  overrides = protocols.atari_overrides(protocol, settings_lib.as_recorded(options)['level_name'])
  settings, folder, checkpoint = _trained_run(options, 'test', choice)
  records.read(folder)  # Whether there is room for another is known before it is played.
  process.import_tensorflow()
  frames = int(Checkpoints.value(checkpoint, 'environment_frames'))
  games = _play(checkpoint, settings, num_episodes, overrides, deterministic, interrupts.is_set)
  _check_all_played(interrupts)
  result = {
    **protocols.described(protocol, settings.num_actions),
    **dict(deterministic=deterministic, seed=settings.seed),
    **dict(checkpoint_choice=choice, checkpoint_frames=frames),
    **records.summary(settings.level_name, games, settings.num_action_repeats),
  }
  print(records.add(folder, result, checkpoint))


def _play(checkpoint, settings, num_episodes, overrides, deterministic, should_stop):
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
    BadInput: there is no such run or checkpoint, or it cannot be rendered.
    RunFailed: told to stop, or the disk; then nothing is written.
  """
  interrupts = process.Interrupts()
  settings, folder, checkpoint = _trained_run(options, 'film', choice)
  from envs import rendered

  try:
    game = rendered.open_game(settings, settings_lib.derived_seed(settings.seed, 30_000))
  except ValueError as e:
    raise BadInput(f'--mode=video: {e}') from None
  try:
    process.import_tensorflow()
    from evaluation import video as video_lib

    returns, frames = video_lib.film(
      folder,
      checkpoint,
      settings,
      game,
      num_episodes,
      annotate,
      deterministic,
      interrupts.is_set,
    )
  finally:
    game.close()
  _check_all_played(interrupts)
  played = ', '.join(f'{score:g}' for score in returns)
  print(f'{settings.level_name}: return {played}; {frames} frames in {folder}/video.webm')


def export(options, choice):
  """Writes the policy of a checkpoint of a run to LOGDIR/export.

  Args:
    options: `roles.settings.Options`.
    choice: as for `test`.

  Raises:
    BadInput: there is no such run or checkpoint.
    RunFailed: the disk.
  """
  settings, folder, checkpoint = _trained_run(options, 'export', choice)
  process.import_tensorflow()
  import environments
  from evaluation import export as export_lib

  target = os.path.join(folder, 'export')
  description = dict(settings_lib.described(settings), checkpoint_choice=choice)
  atari = environments.atari_arguments(
    settings.level_name, settings.num_action_repeats, settings.width, settings.height
  )
  export_lib.export(target, checkpoint, settings, atari, description)
  print(target)


def _trained_run(options, purpose, choice):
  """(settings, folder, path of the chosen checkpoint)."""
  settings = settings_lib.own_settings(settings_lib.as_recorded(options))
  folder = settings_lib.run_folder(settings, options.logdir)
  if not Checkpoints.exist(folder):
    raise BadInput(f'--logdir={folder} has no checkpoint to {purpose}; train first')
  settings_lib.check_same_run(folder, settings)
  return settings, folder, checkpoints.find(folder, choice, f'--checkpoint={choice}')


def _check_all_played(interrupts):
  if interrupts.is_set():
    raise RunFailed(f'{interrupts.reason}: not all games were played, nothing is written')
