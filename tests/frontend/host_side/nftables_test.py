"""The state of a firewall that was set, on a host without nft."""

import json
import os
import shutil

import pytest

from frontend.host_side import nftables, supervisor


@pytest.fixture
def session(monkeypatch, tmp_path):
  """A session whose note says that ports 8000 and 8001 were closed at this boot; no nft is here."""
  monkeypatch.setattr(supervisor, 'run_folder', lambda session: str(tmp_path / session))
  monkeypatch.setattr(shutil, 'which', lambda name, path=None: None)
  write(tmp_path, {'ports': [8000, 8001], 'boot': nftables._boot()})
  return 's'


def write(folder, note):
  os.makedirs(folder / 's', exist_ok=True)
  (folder / 's' / 'firewall-a.set').write_text(json.dumps(note))


def test_a_login_that_cannot_look_goes_by_the_note(session, tmp_path):
  assert nftables.still_set(session, 'a', [8000]) == (True, 'set; not looked at')
  assert nftables.still_set(session, 'other', [8000])[0]  # Nothing was set for that host.
  write(tmp_path, {'ports': [8000], 'boot': 'another'})
  good, text = nftables.still_set(session, 'a', [8000])
  assert not good and 'before this host was started anew' in text and 'nft is not installed' in text


@pytest.mark.parametrize(
  'note', [None, [], {}, {'ports': 'x'}, {'ports': 5}, {'ports': [None], 'boot': 3}]
)
def test_a_note_that_is_damaged_is_no_proof(session, tmp_path, note):
  write(tmp_path, note)
  assert not nftables.still_set(session, 'a', [8000])[0]


def test_a_port_that_came_into_the_csv_since_is_named(session):
  good, text = nftables.still_set(session, 'a', [8000, 8002, 8001, 8003])
  assert not good and 'does not close 8002, 8003; set it again' in text


@pytest.mark.parametrize(
  'connection, port',
  [
    ('10.0.0.1 50000 10.0.0.11 22', 22),
    ('fd00::1 50000 fd00::2 2222', 2222),
    ('', None),
    ('10.0.0.1 50000 10.0.0.11', None),
    ('a b c d', None),
  ],
)
def test_the_port_of_the_connection(connection, port):
  assert nftables._ssh_port(connection) == port
