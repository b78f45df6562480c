"""Started by root, with mailboxes of system users; and configurations that exist: Debian's, and the manual's example."""
import os
import re
import subprocess

import pytest

from support.place import Place
from support.smtp import Client
from support.util import maildir, read, wait_for, write

pytestmark = pytest.mark.root

ROUTERS = '''
aliases:
  driver = redirect
  domains = +local_domains
  data = ${lookup{$local_part}lsearch{@DIR@/aliases}}
  user = u9
  file_transport = to_file
  pipe_transport = to_pipe
forward:
  driver = redirect
  domains = +local_domains
  check_local_user
  file = $home/.forward
  no_verify
  no_expn
  check_ancestor
  file_transport = to_file
  pipe_transport = to_pipe
mbox_users:
  driver = accept
  domains = +local_domains
  local_parts = u0 : u1
  check_local_user
  transport = mbox
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
  return_output
  path = /usr/bin:/bin
mbox:
  driver = appendfile
  file = /var/mail/$local_part_data
  group = mail
  mode = 0660
  delivery_date_add
  envelope_to_add
  return_path_add
home:
  driver = appendfile
  directory = $home/Maildir
  maildir_format
  create_directory
'''


@pytest.fixture
def system(martlet):
    def start(aliases='', **kw):
        kw.setdefault('acl_rcpt', '  accept domains = +local_domains\n')
        m = martlet(privileged=True, transports=TRANSPORTS, **{'routers': ROUTERS, **kw})
        write(os.path.join(m.directory, 'aliases'), aliases.replace('@DIR@', m.directory))
        return m
    return start


def home(m, user, name=''):
    return m.place.path(os.path.join('/home', user, name))


def own_file(m, user, name, text):
    path = write(home(m, user, name), text)
    os.chown(path, m.place.uid(user), m.place.uid(user))


def send(m, *recipients, data='Subject: x\r\n\r\nx\r\n', sender='a@b.test'):
    with Client(m.port) as c:
        got = c.mail(sender, *recipients, data=data)
        assert got[0] == 250, (got, m.logs())


def test_mbox_of_a_system_user(system):
    m = system()
    for n in range(3):
        send(m, 'u0@local.test', data=f'Subject: {n}\r\n\r\nFrom me\r\n')
    box = m.place.path('/var/mail/u0')
    wait_for(lambda: read(box).count('\n>From me\n') == 3, m.logs)
    info = os.stat(box)
    assert (info.st_uid, info.st_mode & 0o777) == (m.place.uid('u0'), 0o660)
    assert len(re.findall(r'^From a@b\.test \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}$', read(box), re.M)) == 3
    wait_for(lambda: not os.path.exists(box + '.lock'), m.logs) # the lock goes after the message is there


def test_a_reload_lets_local_deliveries_end(system):
    """The agent of the old configuration does what it has begun, once, and is then gone."""
    m = system()
    own_file(m, 'u2', '.forward', '"|/bin/sh -c \'echo began >>$HOME/seen; while [ ! -e $HOME/go ]; do sleep 0.1; done; echo ended >>$HOME/seen\'"\n')
    send(m, 'u2@local.test')
    wait_for(lambda: read(home(m, 'u2', 'seen')) == 'began\n', m.logs)
    before = m.processes()
    m.reload()
    m.wait_log('SIGHUP received')
    send(m, 'u5@local.test')
    wait_for(lambda: maildir(home(m, 'u5', 'Maildir')), m.logs)
    own_file(m, 'u2', 'go', '')
    m.wait_log(r' => \|/bin/sh -c .* <u2@local\.test>')
    wait_for(lambda: not set(before) - {m.master} & set(m.processes()), m.logs)
    assert read(home(m, 'u2', 'seen')) == 'began\nended\n'


def test_list_file_of_no_user(system):
    """A redirect router without a user reads what Martlet's user may read, and nothing as root."""
    m = system(routers='list:\n  driver = redirect\n  domains = +local_domains\n  local_parts = open : closed\n'
                       '  file = /etc/list.$local_part_data\n' + ROUTERS)
    for name, mode in (('open', 0o644), ('closed', 0o600)):
        os.chmod(write(m.place.path('/etc/list.' + name), 'u5@local.test\n'), mode)
    send(m, 'open@local.test', 'closed@local.test')
    wait_for(lambda: maildir(home(m, 'u5', 'Maildir')), m.logs)
    m.wait_log(r'== closed@local\.test R=list defer .*Permission denied')


def test_maildir_in_the_home_directory(system):
    m = system()
    send(m, 'u5@local.test', 'u6@local.test')
    for user in ('u5', 'u6'):
        wait_for(lambda: maildir(home(m, user, 'Maildir')), m.logs)
        new = home(m, user, 'Maildir/new')
        assert {os.stat(os.path.join(new, n)).st_uid for n in os.listdir(new)} == {m.place.uid(user)}


def test_forward_file(system):
    m = system()
    own_file(m, 'u3', '.forward', f'u4@local.test, \\u3, {home(m, "u3").replace(m.place.directory, "")}/copy, "|/bin/sh -c \'id >$HOME/who\'"\n')
    send(m, 'u3@local.test')
    wait_for(lambda: maildir(home(m, 'u4', 'Maildir')) and maildir(home(m, 'u3', 'Maildir')), m.logs)
    m.wait_log(' Completed')
    assert 'Subject: x' in read(home(m, 'u3', 'copy'))
    assert os.stat(home(m, 'u3', 'copy')).st_uid == m.place.uid('u3')
    who = read(home(m, 'u3', 'who'))
    assert f'uid={m.place.uid("u3")}(u3)' in who and 'root' not in who


def test_forward_files_of_others_do_no_harm(system):
    """A .forward that belongs to somebody else, is writable for all, or is no file, is not followed."""
    m = system()
    own_file(m, 'u5', '.forward', 'u4@local.test\n')
    os.chown(home(m, 'u5', '.forward'), m.place.uid('u7'), m.place.uid('u7'))
    os.mkdir(home(m, 'u6', '.forward'))
    own_file(m, 'u7', '.forward', 'u4@local.test\n')
    os.chmod(home(m, 'u7', '.forward'), 0o666)
    send(m, 'u5@local.test', 'u6@local.test', 'u7@local.test')
    m.wait_log(r' == u[567]@local\.test R=forward defer', count=3)
    assert maildir(home(m, 'u4', 'Maildir')) == []


def test_pipe_runs_as_its_user(system):
    m = system(aliases='pipe: "|/bin/sh -c \'id -u >@DIR@/mail/who\'"\nbad: "|/bin/sh -c \'echo sorry; exit 7\'"\n')
    os.chmod(m.outside('mail'), 0o777)
    send(m, 'pipe@local.test', 'bad@local.test', sender='u8@local.test')
    wait_for(lambda: read(m.outside('mail/who')).strip() == str(m.place.uid('u9')), m.logs)
    wait_for(lambda: maildir(home(m, 'u8', 'Maildir')), m.logs)
    assert b'sorry' in maildir(home(m, 'u8', 'Maildir'))[0]
    m.wait_log(r' \*\* \|/bin/sh -c .* <bad@local\.test> R=aliases T=to_pipe ?: Child process of to_pipe transport returned 7')


def test_never_as_root(system):
    m = system(main='never_users = root', acl_rcpt='  accept\n')
    with open(os.path.join(m.directory, 'aliases'), 'w') as f:
        f.write('')
    send(m, 'root@local.test')
    m.wait_log(r' (==|\*\*) root@local\.test')
    m.allow_panic = 'root|never_users'
    assert not os.path.exists(m.place.path('/var/mail/root'))


def test_who_runs_as_what(system):
    """No process that talks to the network is root."""
    m = system()
    with Client(m.port) as c:
        c.ehlo()
        ours = {}
        for pid in m.processes():
            status = read(f'/proc/{pid}/status')
            ours[pid] = int(re.search(r'^Uid:\s+\d+\s+(\d+)', status, re.M).group(1))
        inode = None
        here, there = c.sock.getsockname()[1], m.port
        for line in read('/proc/net/tcp').split('\n')[1:]:
            fields = line.split()
            if fields and fields[1].endswith(f':{there:04X}') and fields[2].endswith(f':{here:04X}'):
                inode = fields[9]
        holders = []
        for pid in ours:
            for fd in os.listdir(f'/proc/{pid}/fd'):
                try:
                    if os.readlink(f'/proc/{pid}/fd/{fd}') == f'socket:[{inode}]':
                        holders.append(pid)
                except OSError:
                    pass
        assert holders and all(ours[pid] != 0 for pid in holders), (holders, ours)


def held_back(m):
    """Of each process that is not root's: system call filter and "no new privileges", as the kernel shows them."""
    found = []
    for pid in m.processes():
        status = dict(line.split(':\t') for line in read(f'/proc/{pid}/status').split('\n') if ':\t' in line)
        if status['Uid'].split()[1] != '0':
            found.append((status.get('Seccomp'), status.get('NoNewPrivs')))
    return found


def test_sandbox_of_the_workers(system):
    m = system(acl_rcpt='''  warn add_header = X-Run: ${run{/bin/sh -c "echo it runs"}}
  accept domains = +local_domains
''')
    wait_for(lambda: set(held_back(m)) in ({('2', '1')}, {(None, '1')}), lambda: f'the workers to be held back: {held_back(m)}')
    send(m, 'u5@local.test')
    wait_for(lambda: maildir(home(m, 'u5', 'Maildir')), m.logs)
    assert b'X-Run: it runs' in maildir(home(m, 'u5', 'Maildir'))[0]


def test_sandbox_can_be_switched_off(system):
    m = system(main='no_sandbox')
    with Client(m.port) as c:
        c.ehlo()
    before = read('/proc/self/status').split('Seccomp:\t')[1][0] if 'Seccomp:' in read('/proc/self/status') else None
    assert {filter for filter, _ in held_back(m)} == {before}


def test_local_submission_names_its_caller(system):
    m = system()
    m.run('-odi', 'u5@local.test', input='Subject: from a user\n\nx\n', user='u2')
    wait_for(lambda: maildir(home(m, 'u5', 'Maildir')), m.logs)
    text = maildir(home(m, 'u5', 'Maildir'))[0].decode()
    assert 'From: u2 of the tests <u2@mx.martlet.test>' in text
    m.wait_log(r' <= u2@mx\.martlet\.test U=u2 P=local ')


# Configurations that exist.

DEBIAN = '''dc_eximconfig_configtype='internet'
dc_other_hostnames='mail.test'
dc_local_interfaces='127.0.0.1'
dc_readhost=''
dc_relay_domains=''
dc_minimaldns='false'
dc_relay_nets=''
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='{split}'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='{delivery}'
'''
FILES = {'mailname': 'mail.test\n', 'aliases': 'postmaster: u1\n', 'email-addresses': ''}


def debian_configuration(scratch, peers, split, delivery):
    layer = os.path.join(peers, 'exim')
    place = Place(os.path.join(scratch, 'debian'), [layer], ['Debian-exim'])
    for name, text in FILES.items():
        place.etc(name, text)
    place.etc('exim4/update-exim4.conf.conf', DEBIAN.format(split='true' if split else 'false', delivery=delivery))
    place.start()
    try:
        out = place.path('/var/tmp/conf')
        os.chmod(place.path('/var/spool'), 0o1777)
        place.run(['update-exim4.conf', '-o', '/var/spool/conf'])
        out = place.path('/var/spool/conf')
        return read(out)
    finally:
        place.stop()


@pytest.mark.parametrize('split,delivery', [(False, 'mail_spool'), (True, 'maildir_home')])
def test_configuration_of_debian(martlet, scratch, peers, nameserver, split, delivery):
    text = debian_configuration(scratch, peers, split, delivery)
    assert 'begin routers' in text
    nameserver.host('b.test', '192.0.2.1')
    m = martlet(configuration=text, privileged=True, layers=[os.path.join(peers, 'exim')], etc=FILES, built_in_paths='exim4',
                resolver=nameserver.address, arguments=['-q30m', '-oX', '127.0.0.1.@PORT@'])
    done = subprocess.run(['swaks', '--server', '127.0.0.1', '--port', str(m.port), '--from', 'a@b.test', '--to', 'u1@mail.test',
                           '--helo', 'client.test'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    assert done.returncode == 0, done.stdout + m.logs()
    send(m, 'postmaster@mail.test')
    if delivery == 'mail_spool':
        wait_for(lambda: read(m.place.path('/var/mail/u1')).count('\nReceived: ') == 2, m.logs)
    else:
        wait_for(lambda: len(maildir(home(m, 'u1', 'Maildir'))) == 2, m.logs)
    # Only the host's own address may relay.
    with Client(m.port, source='127.0.0.5') as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('RCPT TO:<x@elsewhere.test>')[0] == 550
        assert c.cmd('RCPT TO:<nobody-here@mail.test>')[0] == 550


def test_example_of_the_manual(martlet, peers, nameserver):
    """The default configuration that the manual explains, as Exim ships it."""
    layer = os.path.join(peers, 'exim')
    text = read(os.path.join(layer, 'usr/share/doc/exim4-base/examples/example.conf'))
    assert 'begin routers' in text
    nameserver.host('b.test', '192.0.2.1')
    m = martlet(configuration=text, privileged=True, etc=FILES, layers=[layer], built_in_paths='martlet', resolver=nameserver.address,
                arguments=['-q30m', '-oX', '127.0.0.1.@PORT@'])
    name = m.run('-bP', 'primary_hostname').split('=')[1].strip()
    send(m, f'u1@{name}', f'postmaster@{name}')
    wait_for(lambda: read(m.place.path('/var/mail/u1')).count('\nReceived: ') >= 1, m.logs)
