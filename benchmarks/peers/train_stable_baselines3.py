"""Trains CartPole-v1 with Stable-Baselines3's PPO; benchmarks/peers/clock.py starts and times it.

  PEER/bin/python benchmarks/peers/train_stable_baselines3.py --seed=1 --out=FOLDER

The settings are those of RL Zoo for CartPole-v1 (hyperparams/ppo.yml), its 100,000 steps included.
FOLDER gets monitor.csv: return, length and seconds of every game. Needs a virtual environment of
its own: pip install stable-baselines3==2.9.2
"""

import argparse
import os

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecMonitor

TIMESTEPS = 100_000


def main():
  """Trains to the end."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--seed', type=int, required=True)
  parser.add_argument('--out', required=True, help='folder of monitor.csv')
  args = parser.parse_args()
  envs = make_vec_env('CartPole-v1', n_envs=8, seed=args.seed)
  envs = VecMonitor(envs, os.path.join(args.out, 'monitor.csv'))
  model = PPO(
    'MlpPolicy', envs, n_steps=32, batch_size=256, gae_lambda=0.8, gamma=0.98, n_epochs=20,
    ent_coef=0.0, learning_rate=lambda left: left * 0.001, clip_range=lambda left: left * 0.2,
    seed=args.seed, device='cpu',
  )  # fmt: skip
  model.learn(TIMESTEPS)


if __name__ == '__main__':
  main()
