"""evaluation.video: whole games are filmed in their colours; no half-written file remains."""

import os
import resource
import shutil

import cv2
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import environments
import nets
from conftest import ROOT
from envs import rendered
from envs.atari import AtariBatch
from evaluation import picture, video
from runtime.process import RunFailed
from structs import ActionPart

PONG, CATCH = 'PongNoFrameskip-v4', 'impala/Catch-v0'


def spec_of(level_name):
  """The environment's spec with what a run's settings say besides."""
  spec = environments.environment_spec(level_name)

  class Settings:
    agent_name, observation_scaling = 'SimpleConvNetLSTMAgent', 'unit'
    value_normalisation = False

  for name in spec._fields:
    setattr(Settings, name, getattr(spec, name))
  return Settings


def checkpoint(folder, settings):
  with tf.Graph().as_default():
    agent = nets.build_agent(settings.agent_name, settings)
    with tf.compat.v1.Session() as session:
      session.run(tf.compat.v1.global_variables_initializer())
      saver = tf.compat.v1.train.Saver(agent.variables)
      return saver.save(session, os.path.join(folder, 'model.ckpt'), global_step=3)


def film(folder, num_episodes=3, annotate=True, should_stop=lambda: False):
  settings = spec_of(CATCH)
  path = checkpoint(folder, settings)
  game = rendered.open_game(settings, 1)
  try:
    return video.film(str(folder), path, settings, game, num_episodes, annotate, False, should_stop)
  finally:
    game.close()


def read(path):
  capture, frames = cv2.VideoCapture(str(path)), []
  while (got := capture.read())[0]:
    frames.append(got[1][..., ::-1])
  capture.release()
  return np.stack(frames)


def test_the_film_plays_back_whole_and_in_the_colours_of_the_game(tmp_path):
  returns, count = film(tmp_path, annotate=False)
  assert len(returns) == 3 and set(returns) <= {-1.0, 1.0}
  frames = read(tmp_path / 'video.webm')
  # A game of 9 steps, the picture before each and that of the end.
  assert (count, frames.shape) == (30, (30, 160, 80, 3))
  # The ball falls by a field of 16 pixels a step; the paddle stays on the last row.
  for t in range(8):
    lit = frames[t, : 9 * 16].mean(axis=(1, 2)) > 20
    assert lit.nonzero()[0][0] // 16 == t
  assert sorted(p.name for p in tmp_path.glob('video*')) == ['video.webm', 'video.webp']
  animated = PIL.Image.open(tmp_path / 'video.webp')
  durations = []
  for i in range(animated.n_frames):
    animated.seek(i)
    animated.load()
    durations.append(animated.info['duration'])
  # Pictures that are alike are one, shown longer: 30 of 200 ms in all.
  assert animated.size == (80, 160) and animated.n_frames > 20 and sum(durations) == 6000


def test_beside_the_game_stands_what_the_agent_intends(tmp_path):
  film(tmp_path, num_episodes=1)
  frames = read(tmp_path / 'video.webm')
  assert len(frames) == 10 and frames.shape[1] >= 420 and frames.shape[2] == 240 + 320
  seen = np.zeros([84, 84, 4], np.uint8)
  game = np.full([210, 160, 3], (10, 200, 90), np.uint8)
  figures = {'return': '3', 'value': '0.5'}

  def policy(logits):
    parts = [ActionPart('discrete', 2)]
    return picture.Policy(parts, np.float32(logits), np.int32(1), ['NOOP', 'FIRE'])

  sure = picture.annotated(game, [seen], figures, policy([-99, 99]))
  even = picture.annotated(game, [seen], figures, policy([0, 0]))
  np.testing.assert_array_equal(sure[:420, :320], np.kron(game, np.ones((2, 2, 1), np.uint8)))
  assert (sure != even)[:, 320 + 130 :].any()
  white = picture.annotated(game, [seen + 255], figures, policy([0, 0]))
  assert ((white == 255) & (even == 0)).sum() > 3 * 4 * 60 * 60


def test_told_to_stop_it_keeps_the_games_that_have_ended(tmp_path):
  looks = iter(range(1000))
  returns, count = film(tmp_path, annotate=False, should_stop=lambda: next(looks) >= 12)
  assert len(returns) == 1 and 10 < count == len(read(tmp_path / 'video.webm')) < 20


def test_told_to_stop_it_leaves_nothing(tmp_path):
  film(tmp_path, should_stop=lambda: True)
  assert list(tmp_path.glob('video*')) == []


def test_a_full_disk_leaves_the_earlier_film(tmp_path):
  (tmp_path / 'video.webm').write_bytes(b'earlier')
  settings = spec_of(CATCH)
  path = checkpoint(tmp_path, settings)
  game = rendered.open_game(settings, 1)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # Bytes; the disk of this process.
  try:
    with pytest.raises(RunFailed, match='full|cannot be written'):
      video.film(str(tmp_path), path, settings, game, 5, True, False, lambda: False)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    game.close()
  assert (tmp_path / 'video.webm').read_bytes() == b'earlier'
  assert [p.name for p in tmp_path.glob('video*')] == ['video.webm']


def test_the_coloured_twin_plays_the_same_game():
  spec = environments.environment_spec(PONG)
  game, alone = rendered.open_game(spec, 5), AtariBatch(spec, 1, 5)
  try:
    alone.reset()
    game.close()
    game = rendered._RenderedAtari(spec, 5)
    step, other = game.reset(), None
    actions = np.random.default_rng(1).integers(0, 6, 200)
    for action in actions:
      step, other = game.step(action), alone.step(np.array([action], np.int32))
      np.testing.assert_array_equal(step.observation, other.observation)
      # Grey as ale_py makes it of the colours, made small: the same game at the same moment.
      grey = game.picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
      small = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)
      assert np.abs(small - step.observation[0, :, :, -1]).mean() < 3
    assert game.picture.shape == (210, 160, 3)
    assert game.action_names[:2] == ['NOOP', 'FIRE'] and game.frames_per_sec == 15
  finally:
    game.close()
    alone.close()


def test_an_environment_that_cannot_render_is_bad_input(processes, tmp_path):
  folder = shutil.copytree(
    os.path.join(ROOT, 'tests', 'data', 'earlier_run'), tmp_path / 'earlier_run'
  )
  run = processes.start(
    'experiment.py', '--mode=video', '--level_name=impala/Memory-v0', f'--logdir={tmp_path}/no'
  )
  assert run.exit_code(60) == 2 and 'no checkpoint to film' in run.output()
  with pytest.raises(ValueError, match='impala/Memory-v0.*cannot render rgb_array'):
    rendered.open_game(environments.environment_spec('impala/Memory-v0'), 1)
  assert list(folder.glob('video*')) == []
