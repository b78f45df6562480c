"""Users' filters and the system filter: tested with -bf, and with mail that is delivered."""
import getpass
import json
import os
import re
import subprocess

import pytest

from support.martlet import binary
from support.smtp import Client
from support.util import maildir, read, wait_for, write

HERE = os.path.dirname(os.path.abspath(__file__))

CONF = '''primary_hostname = host.example
qualify_domain = test.ex
spool_directory = {0}/spool
keep_environment =
'''


# --- -bf, compared with what Debian's Exim 4.96 says (filters_recorded.json) ---

@pytest.mark.plain
def test_recorded(tmp_path):
    """Every recorded run: script, options and message in; output and status out."""
    conf = write(str(tmp_path / 'conf'), CONF.format(tmp_path))
    tmp_path.chmod(0o755)
    name = str(tmp_path / 'filter')
    with open(os.path.join(HERE, 'filters_recorded.json')) as f:
        cases = json.load(f)
    wrong = []
    for case in cases:
        write(name, case['filter'])
        options = [name if o == 'FILE' else o for o in case['options']]
        done = subprocess.run([binary(), '-C', conf, *options], input=case['message'].encode(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60)
        out = done.stdout.decode('utf-8', 'replace').replace(name, 'FILE').replace(getpass.getuser() + '@test.ex', 'CALLER@test.ex')
        if (out, done.returncode) != (case['output'], case['status']):
            wrong.append(f'{case["filter"]!r} {case["options"]}\n--- Exim\n{case["output"]}\n--- ours ({done.returncode})\n{out}\n{done.stderr.decode()}')
    assert len(cases) > 200
    assert not wrong, f'{len(wrong)} of {len(cases)}:\n' + '\n'.join(wrong[:5])


# --- deliveries ---

ROUTERS = '''
filtered:
  driver = redirect
  domains = +local_domains
  check_local_user
  file = $home/.forward
  allow_filter
  no_verify
  {options}
  file_transport = to_file
  pipe_transport = to_pipe
  reply_transport = to_reply
home_users:
  driver = accept
  domains = +local_domains
  check_local_user
  transport = home
'''
TRANSPORTS = '''
to_file:
  driver = appendfile
to_pipe:
  driver = pipe
  path = /usr/bin:/bin
to_reply:
  driver = autoreply
home:
  driver = appendfile
  directory = $home/Maildir
  maildir_format
  create_directory
'''


@pytest.fixture
def system(martlet):
    def start(options='', routers=None, transports='', **kw):
        kw.setdefault('acl_rcpt', '  accept domains = +local_domains\n')
        return martlet(privileged=True, transports=TRANSPORTS + transports, arguments=[],
                       routers=routers or ROUTERS.replace('{options}', options), **kw)
    return start


def home(m, user, name=''):
    return m.place.path(os.path.join('/home', user, name))


def own_file(m, user, name, text):
    path = write(home(m, user, name), text)
    os.chown(path, m.place.uid(user), m.place.uid(user))


def inside(m, user, name):
    return home(m, user, name).replace(m.place.directory, '')


def send(m, *recipients, data='Subject: x\r\n\r\nx\r\n', sender='a@b.test'):
    with Client(m.port) as c:
        got = c.mail(sender, *recipients, data=data)
        assert got[0] == 250, (got, m.logs())


@pytest.mark.root
def test_files_pipes_and_addresses(system):
    m = system()
    own_file(m, 'u1', '.forward', f'''# Exim filter
logfile {inside(m, 'u1', 'log')} 0640
logwrite "$h_subject: ${{run{{/usr/bin/id -u}}}}"
if $h_subject: contains file then save box 640
elif $h_subject: matches "^pipe (.*)" then pipe "/bin/sh -c 'echo $1 `id -u` >>$home/piped'"
elif $h_subject: contains copy then unseen deliver u2@local.test
elif $h_subject: is gone then seen finish
else deliver u3@local.test endif
''')
    for subject in ('a file', 'pipe me', 'a copy', 'gone', 'other'):
        send(m, 'u1@local.test', data=f'Subject: {subject}\r\n\r\nx\r\n')
    wait_for(lambda: 'Subject: a file' in read(home(m, 'u1', 'box')), m.logs)
    wait_for(lambda: maildir(home(m, 'u1', 'Maildir')) and maildir(home(m, 'u2', 'Maildir')) and maildir(home(m, 'u3', 'Maildir')), m.logs)
    uid = m.place.uid('u1')
    wait_for(lambda: os.path.exists(home(m, 'u1', 'piped')) and read(home(m, 'u1', 'piped')) == f'me {uid}\n', m.logs)
    m.wait_log('Completed', count=5)
    info = os.stat(home(m, 'u1', 'box'))
    assert (info.st_uid, info.st_mode & 0o777) == (uid, 0o640)
    # What the filter itself does, it does as the user.
    assert sorted(read(home(m, 'u1', 'log')).split('\n\n')[:-1]) == [f'a copy {uid}', f'a file {uid}', f'gone {uid}', f'other {uid}', f'pipe me {uid}']
    assert os.stat(home(m, 'u1', 'log')).st_uid == uid
    m.wait_log(r'=> discarded <u1@local\.test> R=filtered$')
    m.wait_log(r'=> u2 <u1@local\.test> R=home_users T=home$')


@pytest.mark.root
def test_a_filter_reads_only_what_its_user_may(system):
    """Files of Martlet's own user, and of root, are closed to filters and to files that are expanded for a reply."""
    m = system()
    secret = write(os.path.join(m.directory, 'secret'), 'secret\n')
    os.chmod(secret, 0o600)
    os.chown(secret, m.uid, m.uid)
    seen = secret.replace(m.place.directory, '')
    own_file(m, 'u1', '.forward', f'# Exim filter\nsave "${{readfile{{{seen}}}}}"\n')
    own_file(m, 'u2', 'text', f'${{readfile{{{seen}}}}}\n')
    own_file(m, 'u2', '.forward', '# Exim filter\nmail to u3@local.test expand file $home/text seen finish\n')
    send(m, 'u1@local.test')
    send(m, 'u2@local.test')
    m.wait_log(r'== u1@local\.test R=filtered defer \(-17\): error in filter file: failed to expand .* failed to open .*: Permission denied '
               rf'\(euid={m.place.uid("u1")} ')
    m.wait_log(r'=> u3 <u3@local\.test> R=home_users')
    (text,) = maildir(home(m, 'u3', 'Maildir'))  # a line that does not expand stands as it is
    assert text.endswith(f'\n\n${{readfile{{{seen}}}}}\n'.encode()), text


@pytest.mark.root
def test_vacation(system):
    m = system()
    own_file(m, 'u1', '.forward', f'# Exim filter\nif personal then vacation from "U One <u1@local.test>" file {inside(m, "u1", "msg")} '
             f'expand file {inside(m, "u1", "msg")} once {inside(m, "u1", "once")} log {inside(m, "u1", "vlog")} endif\n')
    own_file(m, 'u1', 'msg', 'About $h_subject:\n\nI am away.\n')
    for n in range(2):
        send(m, 'u1@local.test', sender='u4@local.test', data=f'From: u4@local.test\r\nTo: u1@local.test\r\nSubject: S{n}\r\n\r\nx\r\n')
        wait_for(lambda: len(maildir(home(m, 'u1', 'Maildir'))) == n + 1, m.logs)
    send(m, 'u1@local.test', sender='u4@local.test', data='From: u4@local.test\r\nTo: u1@local.test\r\nPrecedence: bulk\r\n\r\nx\r\n')
    wait_for(lambda: len(maildir(home(m, 'u1', 'Maildir'))) == 3, m.logs)
    m.wait_log(' Completed$', count=4)
    assert len(re.findall(' <= ', m.log())) == 4, m.logs()
    answers = maildir(home(m, 'u4', 'Maildir'))
    assert len(answers) == 1
    text = answers[0] if isinstance(answers[0], str) else answers[0].decode()
    assert 'Subject: On vacation\n' in text and 'Auto-Submitted: auto-replied\n' in text and 'About S0\n' in text
    assert 'To: u4@local.test\n' in read(home(m, 'u1', 'vlog')) and os.stat(home(m, 'u1', 'vlog')).st_uid == m.place.uid('u1')


@pytest.mark.root
def test_a_filter_that_does_not_end(system):
    """A filter that waits for ever loses its process; the message waits, others are delivered."""
    m = system()
    own_file(m, 'u1', '.forward', '# Exim filter\nsave "${run{/bin/sh -c \'kill -9 $PPID\'}}"\n')
    send(m, 'u1@local.test', 'u2@local.test')
    wait_for(lambda: maildir(home(m, 'u2', 'Maildir')), m.logs)
    m.wait_log(r'== u1@local\.test R=filtered defer \(-17\): error in filter file: ')


@pytest.mark.root
def test_what_a_router_forbids(system):
    m = system(options='forbid_filter_run\n  forbid_pipe\n  forbid_filter_reply')
    own_file(m, 'u1', '.forward', '# Exim filter\nsave "${run{/bin/true}}"\n')
    own_file(m, 'u2', '.forward', '# Exim filter\npipe /bin/true\n')
    own_file(m, 'u3', '.forward', '# Exim filter\nseen mail text x\n')
    own_file(m, 'u4', '.forward', '# Exim filter\nfail text no\n')
    send(m, 'u1@local.test', 'u2@local.test', 'u3@local.test', 'u4@local.test', sender='u9@local.test', data='From: u9@local.test\r\n\r\nx\r\n')
    m.wait_log(r'== u1@local\.test R=filtered defer \(-17\): .*running a command is not permitted')
    m.wait_log(r'\*\* \|/bin/true <u2@local\.test> R=filtered T=to_pipe : delivery to pipe forbidden')
    m.wait_log(r'\*\* >u9@local\.test <u3@local\.test> R=filtered T=to_reply : delivery to autoreply forbidden')
    m.wait_log(r'== u4@local\.test R=filtered defer \(-17\): .*"fail" is disabled')


SYSTEM_FILTER = '''# Exim filter
if first_delivery then headers remove X-Old headers add "X-New: $h_subject:" endif
add 3 to n1
if error_message then finish endif
if $h_subject: contains copy then unseen deliver u5@local.test errors_to u6@local.test endif
if $h_subject: contains gone then seen finish endif
if $h_subject: contains fail then fail "<<for the log>>for the sender" endif
if $h_subject: contains freeze then freeze "have a look" endif
if $h_subject: contains save then seen save /home/u7/saved endif
'''


@pytest.mark.root
def test_system_filter(system):
    m = system(main='system_filter = /etc/system.filter\nsystem_filter_file_transport = to_file\nsystem_filter_user = u7',
               etc={'system.filter': SYSTEM_FILTER})
    own_file(m, 'u1', '.forward', '# Exim filter\nif $sn1 is 3 and $h_x-new: contains copy then save counted endif\n')
    send(m, 'u1@local.test', sender='u8@local.test', data='Subject: copy\r\nX-Old: y\r\n\r\nx\r\n')
    wait_for(lambda: 'X-New: copy\n' in read(home(m, 'u1', 'counted')), m.logs)
    m.wait_log(r'=> u5 <system-filter> R=home_users T=home$')
    m.wait_log(' Completed$')
    assert 'X-Old' not in read(home(m, 'u1', 'counted'))
    for subject in ('gone', 'fail', 'freeze', 'save'):
        send(m, 'u2@local.test', sender='u8@local.test', data=f'Subject: {subject}\r\n\r\nx\r\n')
    m.wait_log(r'=> discarded \(system filter\)$')
    m.wait_log(r'cancelled by system filter: for the log$')
    m.wait_log(r'Frozen by the system filter: have a look$')
    m.wait_log(r'=> /home/u7/saved <system-filter> T=to_file$')
    wait_for(lambda: maildir(home(m, 'u8', 'Maildir')), m.logs)
    bounce = maildir(home(m, 'u8', 'Maildir'))[0]
    assert 'for the sender' in (bounce if isinstance(bounce, str) else bounce.decode())
    assert not maildir(home(m, 'u2', 'Maildir'))
    assert os.stat(home(m, 'u7', 'saved')).st_uid == m.place.uid('u7')


@pytest.mark.plain
@pytest.mark.parametrize('kind, option', [('exim-filter', '-bf'), ('system-filter', '-bF')])
def test_examples_of_the_documentation(tmp_path, kind, option):
    """docs/filters.md: every filter there runs without an error."""
    conf = write(str(tmp_path / 'conf'), CONF.format(tmp_path))
    tmp_path.chmod(0o755)
    text = read(os.path.join(HERE, '..', '..', 'docs', 'filters.md'))
    found = re.findall(r'^```' + kind + r'\n(.*?)^```$', text, re.M | re.S)
    assert found
    for one in found:
        name = write(str(tmp_path / 'filter'), one)
        done = subprocess.run([binary(), '-C', conf, option, name, '-f', 'a@b.test'], input=b'Subject: [project] x\nX-Spam-Score: 1\n\nx\n',
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        assert done.returncode == 0 and b'ormal delivery will occur' in done.stdout or b'No other deliveries' in done.stdout, done.stdout
