"""What a new administrator meets: no configuration, no spool directory or one of another user, --help."""
import os
import re
import subprocess

import pytest

from support.martlet import binary
from support.place import Place
from support.util import free_port, read, wait_for, write

CONFIGURATION = '''
exim_user = mailer
exim_group = mailer
spool_directory = /var/spool/new/mail
log_file_path = /var/log/mail/%slog
pid_file_path = /run/mail.pid
submission_socket =
tls_advertise_hosts =
worker_processes = 1
'''

# Its leak checker cannot look at a process that has changed its user.
ENVIRONMENT = dict(os.environ, ASAN_OPTIONS=os.environ.get('ASAN_OPTIONS', '') + ':detect_leaks=0')


class Machine:
    def __init__(self, scratch):
        self.place = Place(os.path.join(scratch, 'place'), users=['mailer', 'other'])
        self.place.start()
        os.chmod(scratch, 0o755)
        self.conf = write(os.path.join(scratch, 'conf'), CONFIGURATION)
        self.spool = self.place.path('/var/spool/new/mail')
        self.output = os.path.join(scratch, 'said')
        self.logs = '/var/log/mail'
        self.daemon = None

    def run(self, *arguments):
        return subprocess.run(self.place.command([binary(), '-C', self.conf, *arguments]), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, cwd='/', env=ENVIRONMENT)

    def start(self, wait=True):
        with open(self.output, 'wb') as out:
            self.daemon = self.place.popen([binary(), '-C', self.conf, '-bdf', '-q1h', '-oX', f'127.0.0.1.{free_port()}'],
                                           stdout=out, stderr=out, env=ENVIRONMENT)
        if wait:
            wait_for(lambda: 'End queue run' in self.log('main'), lambda: 'the daemon: ' + self.said())

    def said(self):
        """On standard output and error, by the daemon."""
        return read(self.output)

    def log(self, kind):
        path = self.place.path(f'{self.logs}/{kind}log')
        return read(path) if os.path.exists(path) else ''

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
        self.place.stop()
        if self.daemon:
            self.daemon.wait(60)


@pytest.fixture
def machine(scratch):
    m = Machine(str(scratch))
    yield m
    m.stop()


@pytest.mark.root
def test_the_daemon_makes_the_spool_directory(machine):
    done = machine.run('-bp')
    assert done.returncode == 75 and 'does not exist' in done.stdout and 'mailer' in done.stdout, done.stdout
    machine.start()
    st = os.stat(machine.spool)
    assert (st.st_uid, st.st_mode & 0o777) == (machine.place.uid('mailer'), 0o750)
    assert os.stat(os.path.dirname(machine.spool)).st_uid == 0
    assert machine.log('panic') == ''
    done = machine.run('-bp')
    assert (done.returncode, done.stdout) == (0, ''), done.stdout


@pytest.mark.root
@pytest.mark.parametrize('which', ['', '/input'])
def test_a_spool_of_another_user_is_named(machine, which):
    """As after a change from a mail server with a user of its own."""
    os.makedirs(machine.spool + which)
    os.chown(machine.spool, *2 * [machine.place.uid('mailer')])
    os.chown(machine.spool + which, *2 * [machine.place.uid('other')])
    os.chmod(machine.spool + which, 0o750)
    text = fr'spool directory /var/spool/new/mail{which}: Permission denied for user mailer.* belongs to other, mode 0750'
    machine.start()
    assert re.search(text + '.*exim_user', machine.log('panic')), machine.log('panic')
    done = machine.run('-bp')
    assert done.returncode == 75 and re.search(text, done.stdout), done.stdout


@pytest.mark.root
@pytest.mark.parametrize('which', ['directory', 'file'])
def test_logs_that_the_workers_cannot_write_are_named(machine, which):
    logs = machine.place.path('/var/log/mail')
    os.makedirs(logs)
    if which == 'file':
        os.chown(logs, *2 * [machine.place.uid('mailer')])
        write(logs + '/rejectlog', '')
        os.chmod(logs + '/rejectlog', 0o640)
    name = '/var/log/mail' + ('/rejectlog' if which == 'file' else '')
    text = fr'log {which} {name}: Permission denied for user mailer, .*belongs to root, mode 0\d\d\d\): give it to mailer.*log_file_path'
    machine.start()
    assert re.search(text, machine.log('panic')), machine.log('panic')
    assert re.search('^martlet: ' + text, machine.said(), re.M), machine.said()


@pytest.mark.root
def test_the_daemon_makes_the_log_directory(machine):
    write(machine.conf, CONFIGURATION.replace('/var/log/mail/', '/var/log/new/mail/'))
    machine.logs = '/var/log/new/mail'
    machine.start()
    st = os.stat(machine.place.path('/var/log/new/mail'))
    assert (st.st_uid, st.st_mode & 0o777) == (machine.place.uid('mailer'), 0o750)
    assert machine.log('panic') == '' and machine.said() == ''


@pytest.mark.root
def test_a_log_directory_that_cannot_be_is_named(machine):
    write(machine.conf, CONFIGURATION.replace('/var/log/mail/', '/proc/nowhere/'))
    machine.start(wait=False)
    wait_for(lambda: re.search('^martlet: log directory /proc/nowhere does not exist and cannot be made: .*make it for user mailer$', machine.said(), re.M),
             machine.said)


@pytest.mark.parametrize('value, text', [('relative/spool', 'spool_directory "relative/spool" is not an absolute path'),
                                         ('', 'spool_directory undefined: cannot proceed')])
def test_a_spool_directory_that_is_no_path(tmp_path, value, text):
    conf = write(str(tmp_path / 'conf'), f'spool_directory = {value}\nlog_file_path = {tmp_path}/%slog\n')
    for mode in (['-bdf', '-oX', f'127.0.0.1.{free_port()}'], ['-bp'], ['-bV']):
        done = subprocess.run([binary(), '-C', conf, *mode], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, cwd=str(tmp_path))
        assert done.returncode == 1 and text in done.stdout, done.stdout
    assert not (tmp_path / 'relative').exists()


@pytest.mark.root
def test_a_user_who_may_not_read_the_configuration_tries_again(machine):
    """Debian's is closed to users, and sendmail's callers take other statuses than 75 for final."""
    machine.place.etc('exim4/exim4.conf', CONFIGURATION, 0o640)
    done = subprocess.run(machine.place.command([binary(), 'other@a.test'], 'other'), input='Subject: x\n\n', stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120, cwd='/', env=ENVIRONMENT)
    assert done.returncode == 75 and 'daemon does not answer' in done.stdout, done.stdout


def martlet(*arguments):
    return subprocess.run([binary(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=120)


@pytest.mark.parametrize('words', [['--help'], ['authcheck', '--help'], ['dmarc-report', '--help'], ['tls-report', '--help'],
                                   ['explain', '--help']])
def test_help_needs_no_configuration(words):
    done = martlet(*words)
    assert done.returncode == 0 and 'Usage:' in done.stdout and done.stderr == '', (done.stdout, done.stderr)


@pytest.mark.parametrize('tool', ['exigrep', 'exinext', 'exicyclog', 'exiqsumm', 'exiwhat', 'queue'])
def test_help_of_tools(tool):
    done = martlet(tool, '--help')
    assert 'Usage:' in done.stdout + done.stderr and 'unknown option' not in done.stderr, (done.stdout, done.stderr)


@pytest.mark.skipif(any(os.path.exists(p) for p in ('/etc/martlet/martlet.conf', '/etc/exim4/exim4.conf',
                                                    '/var/lib/exim4/config.autogenerated')), reason='this machine has one')
def test_without_a_configuration():
    done = martlet('-bV')
    assert done.returncode != 0 and done.stdout.startswith('Martlet version '), done.stdout
    assert 'non-existent configuration file(s): /etc/martlet/martlet.conf:' in done.stderr and '--demo' in done.stderr, done.stderr
