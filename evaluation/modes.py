"""What a person does with a trained run: test, video and export, each from checkpoint to result."""

import os

from evaluation import protocols
from roles import settings as settings_lib
from runtime import process
from runtime.checkpoints import Checkpoints
from runtime.process import BadInput, RunFailed


def test(options, num_episodes, protocol, deterministic):
  """Plays whole games with the last checkpoint of a run and adds them to evaluation.json.

  Args:
    options: `roles.settings.Options`.
    num_episodes: games to play.
    protocol: a key of `evaluation.protocols.PROTOCOLS`.
    deterministic: whether to take the likeliest action; else it is sampled.

  Raises:
    BadInput: there is no such run, or it cannot be played so.
    RunFailed: told to stop; then nothing is written.
  """
  from evaluation import records

  interrupts = process.Interrupts()
  overrides = protocols.atari_overrides(protocol, settings_lib.as_recorded(options)['level_name'])
  settings, folder = _trained_run(options, 'test')
  records.read(folder)  # Whether there is room for another is known before it is played.
  tf = process.import_tensorflow()
  import environments
  import nets  # noqa: F401 (Sonnet has to be imported outside of any graph)
  from evaluation import play

  checkpoint = Checkpoints.latest(folder)
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
      games = play.play(
        checkpoint,
        settings.agent_name,
        settings,
        num_episodes,
        batch,
        interrupts.is_set,
        deterministic,
      )
    finally:
      batch.close()
  _check_all_played(interrupts)
  result = {
    **protocols.described(protocol, settings.num_actions),
    **dict(deterministic=deterministic, seed=settings.seed),
    **records.summary(settings.level_name, games, settings.num_action_repeats),
  }
  print(records.add(folder, result, checkpoint))


def video(options, num_episodes, annotate, deterministic):
  """Films whole games of a run's newest checkpoint.

  Args:
    options: `roles.settings.Options`.
    num_episodes: games to film.
    annotate: whether it is shown what the agent sees, expects and intends.
    deterministic: whether to take the likeliest action; else it is sampled.

  Raises:
    BadInput: there is no such run, or it cannot be rendered.
    RunFailed: told to stop, or the disk; then nothing is written.
  """
  interrupts = process.Interrupts()
  settings, folder = _trained_run(options, 'film')
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
      Checkpoints.latest(folder),
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


def export(options):
  """Writes the policy of a run's newest checkpoint to LOGDIR/export.

  Args:
    options: `roles.settings.Options`.

  Raises:
    BadInput: there is no such run.
    RunFailed: the disk.
  """
  settings, folder = _trained_run(options, 'export')
  process.import_tensorflow()
  import environments
  from evaluation import export as export_lib

  target = os.path.join(folder, 'export')
  description = settings_lib.described(settings)
  atari = environments.atari_arguments(
    settings.level_name, settings.num_action_repeats, settings.width, settings.height
  )
  export_lib.export(target, Checkpoints.latest(folder), settings, atari, description)
  print(target)


def _trained_run(options, purpose):
  settings = settings_lib.own_settings(settings_lib.as_recorded(options))
  folder = settings_lib.run_folder(settings, options.logdir)
  if not Checkpoints.exist(folder):
    raise BadInput(f'--logdir={folder} has no checkpoint to {purpose}; train first')
  settings_lib.check_same_run(folder, settings)
  return settings, folder


def _check_all_played(interrupts):
  if interrupts.is_set():
    raise RunFailed(f'{interrupts.reason}: not all games were played, nothing is written')
