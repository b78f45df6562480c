"""A machine that fails: full disks, spools that cannot be written, broken configurations, names that do not resolve."""
import os
import re
import shutil

import pytest

from support import procs
from support.smtp import Client
from support.util import wait_for

pytestmark = pytest.mark.root
# $MARTLET_REFERENCE: checked with Debian's Exim, which does not do what its manual says, or what this project adds.
reference_differs = pytest.mark.skipif(bool(os.environ.get('MARTLET_REFERENCE')), reason='the reference differs')
BIG = 'Subject: big\r\n\r\n' + ('y' * 76 + '\r\n') * 50000


@pytest.fixture
def martlet(martlet):
    """No process of the daemon may end because of what happens here (but for reloading, which says so: m.replaced)."""
    started = []

    def start(**kw):
        m = martlet(**kw)
        if m.daemon:
            m.replaced = False
            started.append((m, m.alive()))
        return m
    yield start
    for m, before in started:
        gone = [] if m.replaced else [p for p in before if not procs.alive(p)]
        assert not gone, f'{len(gone)} processes ended: {m.logs()}'


def session(m):
    c = Client(m.port)
    c.ehlo()
    return c


def test_spool_disk_full(martlet):
    """No 250 without the message on the disk; the client is asked to come back, and can."""
    m = martlet(tmpfs={'{d}/spool': 'size=2m,uid={uid},mode=755'}, allow_panic='No space left|spool', main='message_size_limit = 0')
    with session(m) as c:
        code, text = c.mail('a@b.test', 'u0@local.test', data=BIG, hello=False)
        assert 400 <= code < 500, (code, text)
    wait_for(lambda: m.spool_files() == [], lambda: str(m.spool_files()))
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='Subject: small\r\n\r\nx\r\n')[0] == 250
    assert b'Subject: small' in m.wait_mail('u0')[0]
    m.wait_empty()
    assert len(m.mail('u0')) == 1


def test_spool_disk_full_at_the_envelope(martlet):
    """So full that not even small files can be made; nothing is left of the attempt when there is room again."""
    m = martlet(tmpfs={'{d}/spool': 'size=1m,uid={uid},mode=755'}, allow_panic='.', arguments=[])
    filler = m.outside('spool/filler')
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError):
        while True:
            os.write(fd, b'x' * 4096)
    os.close(fd)
    with session(m) as c:
        code, text = c.mail('a@b.test', 'u0@local.test', hello=False)
        assert 400 <= code < 500, (code, text)
    os.unlink(filler)
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')
    wait_for(lambda: m.spool_files() == [], lambda: str(m.spool_files()))
    assert len(m.mail('u0')) == 1


def test_space_is_checked_before(martlet):
    m = martlet(tmpfs={'{d}/spool': 'size=2m,uid={uid},mode=755'}, space='10M')
    with session(m) as c:
        code, text = c.cmd('MAIL FROM:<a@b.test>')
        assert (code, text) == (452, 'Space shortage, please try later')
        c.expect(221, 'QUIT')


@reference_differs
def test_announced_size_is_checked(martlet):
    m = martlet(tmpfs={'{d}/spool': 'size=4m,uid={uid},mode=755'}, space='1M', main='message_size_limit = 0')
    with session(m) as c:
        assert c.cmd('MAIL FROM:<a@b.test> SIZE=1000000')[0] == 250
        c.expect(250, 'RSET')
        assert c.cmd('MAIL FROM:<a@b.test> SIZE=9000000') == (452, 'Space shortage, please try later')


def test_mailbox_disk_full(martlet):
    """The delivery is deferred and no part of a message stays; it is made when there is room again."""
    m = martlet(tmpfs={'{d}/mail': 'size=1m,uid={uid},mode=755'}, retry='* * F,1h,1s', arguments=['-q1s'],
                main='message_size_limit = 0')
    filler = m.outside('mail/filler')
    with open(filler, 'wb') as f:
        f.write(b'x' * 900000)
    with session(m) as c:
        assert c.mail('a@b.test', 'u0@local.test', data='Subject: x\r\n\r\n' + 'z' * 400000 + '\r\n', hello=False)[0] == 250
    m.wait_log(r' == u0@local\.test R=local_users T=maildir defer \(28\): No space left on device')
    assert m.mail('u0') == []
    os.unlink(filler)
    assert len(m.wait_mail('u0')[0]) > 400000
    m.wait_empty()
    left = os.path.join(m.outside('mail/u0/tmp'))
    assert not os.path.isdir(left) or os.listdir(left) == []


def fill(path):
    """Writes until the disk is full; to the last byte, so that nothing else fits."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (4096, 1):
            with pytest.raises(OSError):
                while True:
                    os.write(fd, b'x' * size)
    finally:
        os.close(fd)


def test_log_disk_full(martlet):
    """Mail goes on without logs, and logs go on when there is room again."""
    m = martlet(tmpfs={'{d}/log': 'size=256k,uid={uid},mode=755'}, allow_panic='.', arguments=[])
    filler = m.outside('log/filler')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_log(r' Completed$')
    fill(filler)
    for n in range(50):
        with session(m) as c:
            assert c.mail('a@b.test', f'u{n % 5}@local.test', hello=False)[0] == 250
    for n in range(5):
        m.wait_mail(f'u{n}', 11 if n == 0 else 10)
    os.unlink(filler)
    with Client(m.port) as c:
        assert c.mail('again@b.test', 'u6@local.test')[0] == 250
    m.wait_mail('u6')
    m.wait_log(r' <= again@b\.test ')


def test_unwritable_logs(martlet):
    m = martlet(inside=True, allow_panic='.', arguments=[])
    for name in os.listdir(m.outside('log')):
        os.unlink(m.outside('log/' + name))
    os.chown(m.outside('log'), 0, 0)
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')
    os.chown(m.outside('log'), m.uid, m.gid)
    with Client(m.port) as c:
        assert c.mail('again@b.test', 'u1@local.test')[0] == 250
    m.wait_mail('u1')


def test_local_submission_with_full_disk(martlet):
    """The caller is told, and nothing is left."""
    m = martlet(tmpfs={'{d}/spool': 'size=1m,uid={uid},mode=755'}, allow_panic='No space left|spool', daemon=False)
    m.run('-odq', 'u0@local.test', input='Subject: first\n\nx\n')
    before = m.spool_files()
    fill(m.outside('spool/filler'))
    for arguments in ([], ['-oee'], ['-oep']):
        done = m.run('-odi', *arguments, 'u1@local.test', input='Subject: second\n\n' + 'x' * 30000 + '\n', check=False)
        assert done.returncode != 0, (arguments, done.stdout)
    os.unlink(m.outside('spool/filler'))
    wait_for(lambda: m.spool_files() == before, lambda: f'{before} {m.spool_files()}')
    m.run('-q')
    m.wait_mail('u0')
    assert m.mail('u1') == []


def test_spool_full_while_deliveries_go_on(martlet, smtp_server):
    """The next hop took it: when that cannot be written down the message is not lost, and is not sent again and again."""
    s = smtp_server({'RCPT': [None, '450 later', None]})
    m = martlet(tmpfs={'{d}/spool': 'size=1m,uid={uid},mode=755'}, allow_panic='No space left|spool|failed to update', smarthost=f'127.0.0.1::{s.port}',
                retry='* * F,1h,1s', arguments=[])
    m.run('-odq', 'one@relay.test', 'two@relay.test', input='Subject: x\n\nx\n')
    fill(m.outside('spool/filler'))
    m.run('-q', check=False)
    wait_for(lambda: s.messages, m.logs)
    os.unlink(m.outside('spool/filler'))
    wait_for(lambda: m.run('-q', check=False).returncode == 0 and not m.queue(), lambda: str(m.queue()) + m.logs())
    told = [r for message in s.messages for r in message['rcpt']]
    assert {'<one@relay.test>', '<two@relay.test>'} <= set(told), told
    assert len(told) <= 4, told


def test_unwritable_spool(martlet):
    m = martlet(inside=True, allow_panic='spool|Permission denied|mkdir', arguments=[])
    # A worker that has its log of writes open already needs no directory: it has to begin without one.
    m.terminate()
    m.replaced = True
    spool = m.outside('spool')
    for name in os.listdir(spool):
        path = os.path.join(spool, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    os.chmod(spool, 0o555)
    m.start()
    with session(m) as c:
        code, text = c.mail('a@b.test', 'u0@local.test', hello=False)
        assert 400 <= code < 500, (code, text)
    m.wait_log(r'Failed to create directory ".*/spool/input": Permission denied|spool file.*Permission denied', 'panic')
    for where, names, _ in os.walk(m.outside('spool')):
        os.chmod(where, 0o755)
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')


def test_unwritable_mailbox(martlet):
    m = martlet(inside=True, retry='* * F,1h,1s', arguments=['-q1s'])
    os.chown(m.outside('mail'), 0, 0)
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_log(r' == u0@local\.test R=local_users T=maildir defer \(13\): Permission denied')
    os.chown(m.outside('mail'), m.uid, m.gid)
    m.wait_mail('u0')
    m.wait_empty()


def test_damaged_spool_files(martlet):
    """What cannot be read is reported and left, and holds up nothing else."""
    m = martlet(inside=True, arguments=[], allow_panic='.', daemon=False)
    idents = []
    for n in range(4):
        m.run('-odq', f'u{n}@local.test', input=f'Subject: {n}\n\nx\n')
        idents = m.queue()
    files = {i: [p for p in m.spool_files() if i in p] for i in idents}
    header = next(p for p in files[idents[0]] if p.endswith('-H'))
    with open(header, 'r+b') as f:
        f.truncate(30)
    header = next(p for p in files[idents[1]] if p.endswith('-H'))
    with open(header, 'wb') as f:
        f.write(os.urandom(5000))
    os.unlink(next(p for p in files[idents[2]] if p.endswith('-D')))
    m.run('-q', check=False)
    m.wait_log(rf'{idents[3]} Completed')
    m.wait_log(r'(?i)format error in spool file|spool file.*(damaged|not found|error)', 'main')
    assert sum(len(m.mail(f'u{n}')) for n in range(4)) == 1
    assert any(idents[0] in p for p in m.spool_files()) and any(idents[1] in p for p in m.spool_files())


# Configurations.

def refused(martlet, text, *patterns):
    m = martlet(configuration=text, daemon=False, inside=True)
    done = m.run('-bV', check=False)
    assert done.returncode != 0, done.stdout
    for p in patterns:
        assert re.search(p, done.stdout), (p, done.stdout)
    m.allow_panic = '.'
    return done.stdout


def test_unreadable_configuration(martlet):
    m = martlet(daemon=False, inside=True, allow_panic='.')
    os.chmod(m.conf, 0)
    done = m.run('-bV', check=False)
    assert done.returncode != 0 and 'Permission denied' in done.stdout, done.stdout
    os.unlink(m.conf)
    done = m.run('-bV', check=False)
    assert done.returncode != 0 and re.search('(?i)non-?existent|No such file', done.stdout), done.stdout


@reference_differs
def test_configuration_is_a_directory(martlet):
    m = martlet(daemon=False, inside=True, allow_panic='.')
    os.unlink(m.conf)
    os.mkdir(m.conf)
    assert m.run('-bV', check=False).returncode != 0


@pytest.mark.parametrize('text,patterns', [
    ('primary_hostnme = a.test\n', [r'line 1\b', r'primary_hostnme', r'unknown']),
    ('\n\nsmtp_accept_max = many\n', [r'line 3\b', r'smtp_accept_max']),
    ('smtp_receive_timeout = 5q\n', [r'line 1\b', r'smtp_receive_timeout']),
    ('qualify_domain = a.test\nqualify_domain = b.test\n', [r'line 2\b', r'qualify_domain', r'second time']),
    ('begin nonsense\n', [r'line 1\b', r'nonsense']),
    ('begin routers\nr:\n  driver = acept\n', ['acept']),
    ('begin routers\nr:\n  driver = accept\n  trasport = x\n', [r'line 4\b', 'trasport', r'unknown']),
    ('begin transports\nt:\n  driver = smtp\n  hosts_tri_auth = *\n', ['hosts_tri_auth', r'unknown']),
    ('begin acl\na:\n  acept\n', [r'line 3\b', 'acept']),
    ('begin acl\na:\n  accept domain = x\n', [r'line 3\b', 'domain']),
    ('begin retry\n* * Z,1h,1m\n', [r'line 2\b']),
    ('.include /nonexistent/file\n', [r'line 1\b', '/nonexistent/file']),
    ('.ifdef X\n', ['ifdef|endif']),
    ('.endif\n', [r'line 1\b']),
    ('A = x\nA = y\n', ['macro "A" is already defined']),
])
def test_broken_configuration(martlet, text, patterns):
    refused(martlet, text, *patterns)


@reference_differs
def test_nearest_name_is_told(martlet):
    assert 'primary_hostname' in refused(martlet, 'primary_hostnme = a.test\n')


def test_endless_inclusion(martlet):
    refused(martlet, '.include @DIR@/conf\n', r'[Ii]nclude')


def test_configuration_of_random_bytes(martlet):
    refused(martlet, ''.join(chr(33 + (n * 7919) % 90) + ('\n' if n % 37 == 0 else '') for n in range(5000)))


@reference_differs
def test_broken_configuration_at_reload(martlet):
    """The old one goes on serving."""
    m = martlet(inside=True, allow_panic='.')
    with open(m.conf) as f:
        good = f.read()
    with open(m.conf, 'w') as f:
        f.write('nonsense_option = 1\n' + good)
    m.reload()
    m.replaced = True
    m.wait_log('nonsense_option')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')
    with open(m.conf, 'w') as f:
        f.write(good)
    m.reload()
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    m.wait_mail('u1')


def test_port_in_use(martlet):
    m = martlet(main='daemon_startup_retries = 0')
    other = m.popen('-bdf', '-oP', m.directory + '/other.pid')
    m.allow_panic = '.'
    try:
        m.wait_log(r'(?i)socket bind\(\) to port \d+ .*failed: .*Address already in use')
    finally:
        other.kill()
        other.communicate()
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250


def test_unknown_command_line_options(martlet):
    m = martlet(daemon=False)
    for args in (['-bxyz'], ['--no-such-thing'], ['-oXYZ'], ['-M'], ['-f'], ['-bt', '-N0-such']):
        done = m.run(*args, check=False, input='')
        if args != ['-bt', '-N0-such']:
            assert done.returncode != 0, (args, done.stdout)
    assert 'unknown' in m.run('-bxyz', check=False).stdout


# Names.

LOOKUP = '''
lookup:
  driver = dnslookup
  domains = ! +local_domains
  transport = remote_smtp
  self = send
  ignore_target_hosts = 0.0.0.0
  no_more
'''


# Where no answer comes; elsewhere a busy machine would miss it.
IMPATIENT = 'dns_retrans = 1s\ndns_retry = 1\n'


@pytest.fixture
def resolving(martlet, nameserver, smtp_server):
    """Martlet with a dnslookup router, and where it will deliver to."""
    sink = smtp_server()

    def start(**kw):
        return martlet(resolver=nameserver.address, routers=LOOKUP, relay_from='127.0.0.1', client=f'port = {sink.port}',
                       hosts='127.0.0.1 localhost\n', **kw)
    return start, sink


def test_mx_hosts_in_order(resolving, nameserver):
    start, sink = resolving
    nameserver.add('far.test', 'MX', (30, 'c.far.test'), (20, 'b.far.test')).host('b.far.test', '127.0.0.1')
    nameserver.add('c.far.test', 'A', '127.0.0.9')
    m = start()
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@far.test')[0] == 250
    wait_for(lambda: sink.messages, m.logs)
    m.wait_log(r' => x@far\.test R=lookup T=remote_smtp H=b\.far\.test \[127\.0\.0\.1\]')


def test_unresolvable_name_bounces(resolving, nameserver):
    start, sink = resolving
    nameserver.add('elsewhere.test', 'A', '127.0.0.1')
    m = start()
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'x@nowhere.test')[0] == 250
    m.wait_log(r' \*\* x@nowhere\.test ?: Unrouteable address')
    assert b'x@nowhere.test' in m.wait_mail('u0')[0]
    m.wait_empty()


def test_mx_that_points_nowhere(resolving, nameserver):
    start, sink = resolving
    nameserver.add('far.test', 'MX', (10, 'gone.far.test'))
    m = start()
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'x@far.test')[0] == 250
    m.wait_log(r' \*\* x@far\.test ?: all relevant MX records point to non-existent hosts')


def test_null_mx(resolving, nameserver):
    start, sink = resolving
    nameserver.add('far.test', 'MX', (0, '.'))
    m = start()
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'x@far.test')[0] == 250
    m.wait_log(r' \*\* x@far\.test')
    m.wait_mail('u0')


@pytest.mark.parametrize('trouble', ['SERVFAIL', 'REFUSED', 'TIMEOUT', 'GARBAGE'])
def test_name_server_trouble_defers(resolving, nameserver, trouble):
    start, sink = resolving
    nameserver.trouble['far.test'] = trouble
    m = start(retry='* * F,1h,1s', arguments=['-q1s'], main=IMPATIENT)
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'x@far.test')[0] == 250
    m.wait_log(r' == x@far\.test R=lookup defer \(-1\): (host|DNS) lookup.*(did not complete|failed|DNS)')
    assert m.mail('u0') == []
    nameserver.add('far.test', 'A', '127.0.0.1')
    del nameserver.trouble['far.test']
    wait_for(lambda: sink.messages, m.logs)
    m.wait_empty()


def test_resolver_down(resolving, nameserver):
    """Nobody answers at all: mail for elsewhere waits, mail for here does not."""
    start, sink = resolving
    m = start(retry='* * F,1h,1s', arguments=['-q1s'], main=IMPATIENT)
    nameserver.everything = 'TIMEOUT'
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@far.test')[0] == 250
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')
    m.wait_log(r' == x@far\.test R=lookup defer')
    nameserver.everything = None
    nameserver.add('far.test', 'A', '127.0.0.1')
    wait_for(lambda: sink.messages, m.logs)
    m.wait_empty()


def test_resolver_gone(resolving, nameserver):
    """Nobody listens at the resolver's address (ICMP says so)."""
    start, sink = resolving
    m = start(retry='* * F,1h,1s', arguments=['-q1s'], main=IMPATIENT)
    nameserver.stop()
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@far.test')[0] == 250
    m.wait_log(r' == x@far\.test R=lookup defer')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')


def test_sender_verification(resolving, nameserver):
    start, sink = resolving
    nameserver.add('good.test', 'A', '127.0.0.1')
    nameserver.trouble['broken.test'] = 'SERVFAIL'
    m = start(acl_rcpt='  require verify = sender\n')
    for sender, code, reply in (('a@good.test', 250, 'Accepted'), ('a@none.test', 550, 'Sender verify failed'),
                                ('a@broken.test', 451, ''), ('', 250, 'Accepted')):
        with session(m) as c:
            c.expect(250, f'MAIL FROM:<{sender}>')
            got, text = c.cmd('RCPT TO:<u0@local.test>')
            assert got == code and reply in text, (sender, got, text)


def test_alias_loop_in_dns(resolving, nameserver):
    start, sink = resolving
    nameserver.add('a.test', 'CNAME', 'b.test').add('b.test', 'CNAME', 'a.test')
    m = start()
    with Client(m.port) as c:
        assert c.mail('u0@local.test', 'x@a.test')[0] == 250
    m.wait_log(r' (\*\*|==) x@a\.test')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    m.wait_mail('u1')


def test_reverse_lookup_trouble(martlet, nameserver):
    nameserver.trouble['1.0.0.127.in-addr.arpa'] = 'TIMEOUT'
    m = martlet(resolver=nameserver.address, hosts='', main=IMPATIENT + 'acl_smtp_connect = connect',
                acl='connect:\n  warn verify = reverse_host_lookup\n  accept\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    m.wait_mail('u0')
