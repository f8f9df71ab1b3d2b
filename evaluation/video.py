"""Films games of a checkpoint: a video, and a short animated picture."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import PIL.Image
import tensorflow as tf

from common import files
from evaluation import picture
from evaluation.policy import build_policy, input_names
from runtime.process import RunFailed
from structs import action_shape, arrays_of

_ANIMATED_SECS, _ANIMATED_FRAMES_PER_SEC = 12, 10
_LEAST_FRAMES_PER_SEC = 1
_MADE_IN = '.film-'
PROGRESS_SECS = 10.0  # Between two lines of progress.


def film(
  folder: str,
  checkpoint: str,
  settings: Any,
  game: Any,
  num_episodes: int,
  annotate: bool,
  deterministic: bool,
  should_stop: Callable[[], bool],
  log: Callable[[str], None] = lambda line: None,
) -> tuple[list[float], int]:
  """Plays games and writes FOLDER/video.webm (VP9) and video.webp; earlier ones are replaced.

  A frame of the video is one agent step; it plays at the speed of the game.

  Args:
    folder: folder of the run.
    checkpoint: path of a checkpoint.
    settings: `roles.settings.Settings` of the run.
    game: from `envs.rendered.open_game`.
    num_episodes: whole games, one after another.
    annotate: whether to draw return, reward, value, policy and observation.
    deterministic: whether to take the likeliest action; else it is sampled.
    should_stop: returns whether to stop early.
    log: called with a line of progress every PROGRESS_SECS.

  Returns:
    (returns of the games, number of frames). After stopping early there are fewer games and the
    film ends within a game; without any whole game, no file is written.

  Raises:
    RunFailed: the film cannot be written; nothing is left of it.
  """
  paths = {kind: os.path.join(folder, f'video{kind}') for kind in ('.webm', '.webp')}
  rate = max(_LEAST_FRAMES_PER_SEC, game.frames_per_sec)
  made = _make_folder(folder)
  parts = {kind: os.path.join(made, f'video{kind}') for kind in paths}
  cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
  writer = _Writer(parts, rate)
  try:
    returns: list[float] = []
    frames = _frames(checkpoint, settings, game, num_episodes, annotate, deterministic, returns)
    with contextlib.closing(frames):  # Leaves its graph, which must come first.
      for frame in _log_progress(frames, log, returns, num_episodes):
        writer.add(frame)
        if should_stop():
          break
    if should_stop() and not returns:
      return returns, 0
    writer.close()
    for kind, path in paths.items():
      os.replace(parts[kind], path)
    return returns, writer.count
  except OSError as e:
    raise RunFailed(f'{folder}: the film cannot be written: {e}') from e
  finally:
    writer.release()
    shutil.rmtree(made, ignore_errors=True)


def _make_folder(folder: str) -> str:
  """Makes a folder for an unfinished film, and removes those that killed processes have left."""
  try:
    for name in files.names(folder):
      if name.startswith(_MADE_IN):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    return tempfile.mkdtemp(prefix=_MADE_IN, dir=folder)
  except OSError as e:
    raise RunFailed(f'{folder}: the film cannot be written: {e.strerror}') from None


def _log_progress(
  frames: Iterator[np.ndarray],
  log: Callable[[str], None],
  returns: list[float],
  num_episodes: int,
) -> Iterator[np.ndarray]:
  """Yields the frames; logs a line of progress every PROGRESS_SECS."""
  logged = time.monotonic()
  for count, frame in enumerate(frames, 1):
    yield frame
    if time.monotonic() - logged >= PROGRESS_SECS:
      logged = time.monotonic()
      log(f'{len(returns)} of {num_episodes} games filmed, in {count} frames')


class _Writer:
  """Writes frames uint8 [H, W, 3] of one size to a video and to an animated picture.

  Args:
    parts: path of each file by its ending.
    rate: frames per second.

  Attributes:
    count: int, frames so far.
  """

  def __init__(self, parts: Mapping[str, str], rate: float):
    self._parts, self._rate, self.count = parts, rate, 0
    self._video: cv2.VideoWriter | None = None
    self._animated: list[PIL.Image.Image] = []
    self._size = 0, 0  # Width and height.

  def add(self, frame: np.ndarray) -> None:
    if self._video is None:
      self._size = (frame.shape[1], frame.shape[0])
      codec = cv2.VideoWriter.fourcc(*'VP90')
      with _silent():
        self._video = cv2.VideoWriter(self._parts['.webm'], codec, self._rate, self._size)
      if not self._video.isOpened():
        reason = files.why_not_written(os.path.dirname(self._parts['.webm']))
        raise RunFailed(f'the film cannot be written: {reason or "OpenCV cannot write VP9 here"}')
    self._video.write(np.ascontiguousarray(frame[..., ::-1]))
    every = max(1, round(self._rate / _ANIMATED_FRAMES_PER_SEC))
    if self.count % every == 0 and self.count < _ANIMATED_SECS * self._rate:
      self._animated.append(PIL.Image.fromarray(frame))
    self.count += 1

  def close(self) -> None:
    """Completes both files.

    Raises:
      RunFailed: frames are missing in the video.
      OSError: the animated picture cannot be written.
    """
    self.release()
    written = _number_of_frames(self._parts['.webm'])
    if written != self.count:
      reason = files.why_not_written(os.path.dirname(self._parts['.webm']))
      width, height = self._size
      raise RunFailed(
        f'the film cannot be written, it has {written} of {self.count} frames of '
        f'{width} x {height} pixels: '
        f'{reason or "OpenCV does not say why"}'
      )
    every = max(1, round(self._rate / _ANIMATED_FRAMES_PER_SEC))
    first, *rest = self._animated
    first.save(
      self._parts['.webp'], save_all=True, append_images=rest, loop=0, quality=70, method=2,
      duration=round(1000 * every / self._rate),
    )  # fmt: skip

  def release(self) -> None:
    if self._video is not None:
      self._video.release()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Discards the error stream of C code: OpenCV warns there of a codec tag that works."""
  kept = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


def _number_of_frames(path: str) -> int:
  capture = cv2.VideoCapture(path)
  count = 0
  while capture.grab():
    count += 1
  capture.release()
  return count


def _frames(
  checkpoint: str,
  settings: Any,
  game: Any,
  num_episodes: int,
  annotate: bool,
  deterministic: bool,
  returns: list[float],
) -> Generator[np.ndarray, None, None]:
  """Plays games; yields one frame per agent step and appends each return to `returns`."""
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    policy = build_policy(settings)
    tf.compat.v1.train.Saver(policy.agent.variables).restore(session, checkpoint)
    state = session.run(policy.initial_state, {policy.batch_size: 1})
    act = session.make_callable(policy.outputs, list(policy.inputs.values()))
    names, total = input_names(settings), 0.0
    step, action = game.reset(), np.zeros(action_shape(settings.action), np.int32)
    fitted = picture.Fitting()
    while len(returns) < num_episodes:
      arrays = arrays_of(step.observation)
      fed = dict(last_action=[action], last_reward=step.reward, done=step.done, state=state)
      fed |= zip(names, arrays, strict=True)
      out = act(*(fed[name] for name in policy.inputs))
      state = out['state']
      shown = fitted(game.picture)
      action = out['greedy_action' if deterministic else 'action'][0]
      labels = _figures(returns, total, step.reward[0], _value(out['value'][0], game))
      policy_shown = picture.Policy(settings.action, out['logits'][0], action, game.action_names)
      details = ([array[0] for array in arrays], labels, policy_shown)
      yield picture.annotated(shown, *details) if annotate else picture.even(shown)
      step = game.step(action)
      total = float(step.info.episode_return[0])
      if step.info.game_over[0]:
        # The last picture of the game, after which the agent takes no action.
        labels['return'], labels['reward'] = f'{total:g}', f'{float(step.reward[0]):g}'
        last = (details[0], labels, policy_shown)
        shown = fitted(game.picture)
        yield picture.annotated(shown, *last) if annotate else picture.even(shown)
        returns.append(total)
        total = 0.0


def _value(values: np.ndarray, game: Any) -> float:
  """Returns the value of the level that is played, of a float32 scalar or [n] for n levels."""
  return float(values[game.level_id] if values.ndim else values)


def _figures(returns: list[float], total: float, reward: float, value: float) -> dict[str, str]:
  return {
    'game': str(len(returns) + 1),
    'return': f'{total:g}',
    'reward': f'{float(reward):g}',
    'value': f'{float(value):.3f}',
  }
