"""Login shells and login scripts of all kinds, under a real sshd that has its own /etc/passwd."""

import os
import shlex
import shutil
import sys

import pytest

from frontend.errors import HostError
from network_fixtures import Sshd
from ssh_fixtures import code_fixture, opened_fixture  # noqa: F401

LINES = 'echo Welcome to node7; echo "quota: 12%"\n'


class Account:
  """The account of root behind an sshd: its shell, and a home folder with its login scripts."""

  def __init__(self, folder, opened, code):
    self._folder, self._opened, self._code = folder, opened, code
    self.home = folder / 'there'
    self.home.mkdir()
    self._passwd = folder / 'passwd'
    self.has_shell('/bin/sh')
    words = f'mount --bind {shlex.quote(str(self._passwd))} /etc/passwd && exec "$@"'
    self.sshd = Sshd(
      folder / 'sshd', folder / 'home', prefix=['unshare', '-m', 'sh', '-c', words, 'sh']
    )
    # As a process of its own it is started through the login shell, as many distributions have it.
    self.sshd.more_settings = {'Subsystem': 'sftp /usr/lib/openssh/sftp-server'}
    self.sshd.make_known()

  def has_shell(self, path):
    """Gives root this shell; the file stays the same one, since it is mounted."""
    with open('/etc/passwd', encoding='utf-8') as file:
      lines = [line for line in file if not line.startswith('root:')]
    with open(self._passwd, 'w', encoding='utf-8') as file:
      file.writelines([f'root:x:0:0::{self.home}:{path}\n', *lines])

  def has_scripts(self, **scripts):
    """Replaces the login scripts: {name with `__` for `/` and without its first `.`: text}."""
    shutil.rmtree(self.home)
    for name, text in scripts.items():
      path = self.home / ('.' + name.replace('__', '/'))
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
    self.home.mkdir(exist_ok=True)

  def host(self, **changes):
    return self._opened(
      **{'address': self.sshd.address, 'port': self.sshd.port, 'workdir': self._code,
         'python': sys.executable} | changes)  # fmt: skip


@pytest.fixture(name='account')
def account_fixture(tmp_path, opened, code, monkeypatch):
  if os.getuid() != 0:
    pytest.skip('an sshd with its own /etc/passwd needs root')
  made = Account(tmp_path, opened, code)
  monkeypatch.setenv('HOME', made.sshd.home)
  monkeypatch.delenv('SSH_AUTH_SOCK', raising=False)
  try:
    made.sshd.start()
    yield made
  finally:
    made.sshd.close()


@pytest.mark.cluster
def test_shells_and_scripts_that_print(account, code, tmp_path):
  (tmp_path / 'run').write_text('x')
  (tmp_path / 'pushed').mkdir()
  for shell, scripts in (
    ('csh', {'cshrc': LINES}),
    ('tcsh', {'tcshrc': LINES, 'login': LINES}),
    ('fish', {'config__fish__config.fish': LINES}),
    ('bash', {'bashrc': LINES + 'printf "no end of line"; echo oops >&2\n'}),
  ):
    path = shutil.which(shell)
    if not path:
      continue
    account.has_shell(path)
    account.has_scripts(**scripts)
    host = account.host()
    assert host.ask('hello')['workdir'] == code, shell
    host.workdir = str(tmp_path / 'pushed' / shell)
    assert host.put(str(tmp_path), ['run']) == 1, shell
    with host.files() as files:
      assert list(files.listing(str(tmp_path / 'pushed' / shell))) == ['run'], shell
    with pytest.raises(HostError, match='there is no folder ~/none'):
      account.host(workdir='~/none').ask('hello')
    host.close()


@pytest.mark.cluster
def test_shells_that_run_nothing(account, tmp_path):
  ran = tmp_path / 'ran'
  account.has_shell('/bin/bash')
  for script, sentence in (
    ('echo go away; exit 3\n', r'its login shell ran no command \(exit 3\), and printed .go away'),
    ('while :; do echo spam; done\n', "prints without end, and printed '.*spam"),
  ):
    account.has_scripts(bashrc=script)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr('frontend.connection.scripts.LOGIN_SECS', 2)
      patch.setattr('frontend.connection.scripts.NOISE_BYTES', 10_000)
      with pytest.raises(HostError, match=sentence) as caught:
        account.host(workdir=f'$(touch {ran})').ask('hello')
    assert caught.value.stage == 'login' and '~/.bashrc' in str(caught.value)
  # A shell that a script becomes reads none of the lines that are for ours.
  account.has_scripts(bashrc='exec /bin/sh\n')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr('frontend.connection.scripts.LOGIN_SECS', 2)
    with pytest.raises(HostError, match='did not run a command within 2 s'):
      account.host(workdir=f'; touch {ran}').ask('hello')
  assert not ran.exists()
  account.has_scripts()
  account.has_shell('/usr/sbin/nologin')
  with pytest.raises(HostError, match='ran no command .*This account is currently not available'):
    account.host().ask('hello')
