"""Plays a game with the exported policy beside it; needs tensorflow, numpy, gymnasium, ale-py."""

import json
import os

import gymnasium
import numpy as np
import tensorflow as tf


def play(folder):
  """The return of one game, with sampled actions."""
  with open(os.path.join(folder, 'policy.json'), encoding='utf-8') as file:
    policy = json.load(file)
  signatures = tf.saved_model.load(folder).signatures
  atari, shape = policy['atari'], policy['observation_shape']
  if atari:
    from ale_py.vector_env import AtariVectorEnv

    same_step = gymnasium.vector.AutoresetMode.SAME_STEP
    env = AtariVectorEnv(num_envs=1, autoreset_mode=same_step, **atari)
  else:
    env = gymnasium.make(policy['level_name'], disable_env_checker=True)
  first_action = 0 if atari else int(env.action_space.start)

  def converted(seen):
    if atari:  # [1, stack, H, W] -> [1, H, W, stack].
      return np.moveaxis(seen, 1, -1)
    if isinstance(env.observation_space, gymnasium.spaces.Discrete):
      seen = np.eye(shape[0])[int(seen) - int(env.observation_space.start)]
    seen = np.asarray(seen) * (255 if np.asarray(seen).dtype == np.bool_ else 1)
    return seen.reshape([1, *shape]).astype(policy['observation_dtype'])

  seed = int.from_bytes(os.urandom(3), 'big')
  observation, info = env.reset(seed=np.array([seed], np.int32) if atari else seed)
  state = signatures['initial_state'](batch_size=tf.constant(1))['state']
  action, reward, done, total, over = 0, 0.0, True, 0.0, False
  while not over:
    frames = info['episode_frame_number'][0] if atari else 0
    out = signatures['step'](
      observation=tf.constant(converted(observation)),
      last_action=tf.constant([action], tf.int32),
      last_reward=tf.constant([reward], tf.float32),
      done=tf.constant([done]),
      state=state,
    )
    action, state, reward = int(out['action'][0]), out['state'], 0.0
    for _ in range(1 if atari else policy['num_action_repeats']):
      chosen = np.array([action]) if atari else first_action + action
      observation, gained, terminated, truncated, info = env.step(chosen)
      reward += float(np.sum(gained))
      done = bool(np.any(terminated) or np.any(truncated))
      if done:
        break
    total += reward
    # Of Atari a lost life is `done` too; only after a game the count of frames begins anew.
    restarted = atari and info['episode_frame_number'][0] <= frames
    over = bool(np.any(truncated)) or (done and (not atari or restarted))
  return total


if __name__ == '__main__':
  print('return', play(os.path.dirname(os.path.abspath(__file__))))
