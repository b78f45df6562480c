"""The smtp transport with real and scripted servers: PRDR, LIMITS, early pipelining, SOCKS, events, DSN (F07, F13, F19, F21)."""
import glob
import os
import re
import shutil
import socket
import subprocess

import pytest

from support.smtp import Client
from support.util import free_port, listening, read, wait_for

PRDR_ACL = '''
prdr_check:
  deny    local_parts = no
          message = not with this text
  defer   local_parts = later
          message = not now
  accept
'''


def lines_of(m, pattern):
    return [line for line in m.log().split('\n') if re.search(pattern, line)]


def submit(m, *recipients, sender='a@b.test', data='Subject: x\r\n\r\ntext\r\n'):
    with Client(m.port) as c:
        assert c.mail(sender, *recipients, data=data)[0] == 250


def relay(martlet, port, **kw):
    gaps = dict(acl_rcpt='  accept', relay_to='*', smarthost=f'127.0.0.1::{port}', arguments=[])
    gaps.update(kw)
    return martlet(**gaps)


@pytest.mark.peers
def test_prdr_with_exim_as_server(martlet, exim):
    e = exim(main='prdr_enable\nacl_smtp_data_prdr = prdr_check', acl='  accept\n' + PRDR_ACL + 'unused:',
             routers='sink:\n  driver = redirect\n  data = :blackhole:\n')
    m = relay(martlet, e.port)
    submit(m, 'yes@relay.test', 'no@relay.test', 'later@relay.test', 'too@relay.test')
    wait_for(lambda: len(lines_of(m, r' (=>|->|\*\*|==) \w+@relay.test')) >= 4, m.logs)
    assert [x.split(' C=')[0].split(' PRDR')[-1] for x in lines_of(m, r'(=>|->) (yes|too)@relay.test')] == [' K', ' K']
    assert len(lines_of(m, r'\*\* no@relay.test .*PRDR error after DATA: 550')) == 1
    assert len(lines_of(m, r'== later@relay.test .*PRDR error after DATA: 450')) == 1
    assert len([x for x in e.log().split('\n') if ' <= a@b.test ' in x and 'PRDR' in x]) == 1


def test_prdr_replies_that_do_not_come(martlet, smtp_server):
    s = smtp_server({'DOT': lambda data, session: session.sock.sendall(b'353 each\r\n250 one\r\n') or 'DROP'},
                    keywords=('PRDR', 'SIZE 1000000'))
    m = relay(martlet, s.port)
    submit(m, 'a@relay.test', 'c@relay.test')
    wait_for(lambda: len(lines_of(m, r' == [ac]@relay.test ')) >= 2, m.logs)
    assert not lines_of(m, r' => ') and 'PRDR' in [c for c in s.commands if c.startswith('MAIL')][0]


def test_prdr_is_not_for_one(martlet, smtp_server):
    s = smtp_server(keywords=('PRDR',))
    m = relay(martlet, s.port)
    submit(m, 'a@relay.test')
    wait_for(lambda: s.messages, m.logs)
    assert 'PRDR' not in [c for c in s.commands if c.startswith('MAIL')][0]


def test_limits_of_the_server(martlet, smtp_server):
    s = smtp_server(keywords=('PIPELINING', 'LIMITS RCPTMAX=2 MAILMAX=2'))
    m = relay(martlet, s.port)
    submit(m, *[f'r{n}@relay.test' for n in range(5)])
    wait_for(lambda: len(s.messages) == 3, m.logs)
    assert sorted(len(x['rcpt']) for x in s.messages) == [1, 2, 2] and s.sessions == 2


def test_limits_are_not_believed_before_tls(martlet, smtp_server, authority):
    s = smtp_server(keywords=('LIMITS RCPTMAX=1',), tls=authority.issue('sink.test'))
    m = relay(martlet, s.port, client='hosts_avoid_tls = *')
    submit(m, 'a@relay.test', 'c@relay.test')
    wait_for(lambda: s.messages, m.logs)
    assert len(s.messages[0]['rcpt']) == 2


EARLY = dict(main='log_selector = +pipelining\npipelining_connect_advertise_hosts = *\n', client='hosts_pipe_connect = *')


def test_early_pipelining_between_two_martlets(martlet):
    there = martlet(main=EARLY['main'], acl_rcpt='  accept', relay_to='*', arguments=['-odq'])
    m = relay(martlet, there.port, **EARLY)
    for n in (1, 2):
        submit(m, 'u1@relay.test')
        wait_for(lambda: len(lines_of(m, r' => u1@relay.test')) == n, m.logs)
        wait_for(lambda: len(lines_of(there, r' <= a@b.test')) == n, there.logs)
        # The first connection is kept for a moment: another one is what shows it.
        wait_for(lambda: not established(there.port), m.logs)
    first, second = lines_of(m, r' => u1@relay.test')
    assert ' L K ' in first and ' L* K ' in second, m.log()
    first, second = lines_of(there, r' <= a@b.test')
    assert ' L. ' in first and ' L* ' in second, there.log()


def established(port):
    """Connections to the port, of whatever process."""
    text = read('/proc/net/tcp')
    return [x for x in text.split('\n')[1:] if x and x.split()[2].endswith(':%04X' % port) and x.split()[3] == '01']


def early_server(smtp_server, script=None, keywords=('PIPELINING', 'PIPECONNECT')):
    return smtp_server(script or {}, keywords=keywords)


def twice(m, s):
    submit(m, 'a@relay.test')
    wait_for(lambda: len(s.messages) == 1, m.logs)
    wait_for(lambda: not established(s.port), m.logs)


@pytest.mark.parametrize('script, keywords', [
    ({'CONNECT': ['220 first', '554 too early', None]}, None),
    ({'EHLO': [None, '500 what', None]}, None),
    ({'CONNECT': ['220 first', 'DROP', None]}, None),
    ({}, ['PIPELINING']),
    ({}, ['PIPELINING', 'PIPECONNECT']),
])
def test_a_server_that_is_not_as_remembered(martlet, smtp_server, script, keywords):
    s = early_server(smtp_server, script, ('PIPELINING', 'PIPECONNECT', 'SIZE 1000000', 'CHUNKING'))
    m = relay(martlet, s.port, **EARLY)
    twice(m, s)
    if keywords:
        s.keywords = keywords
    submit(m, 'c@relay.test')
    wait_for(lambda: len(lines_of(m, r' => c@relay.test')) == 1, m.logs)
    assert len(s.messages) == 2 and s.messages[1]['rcpt'] == ['<c@relay.test>']
    assert not lines_of(m, r' (\*\*|==) ')


def test_a_busy_banner_defers(martlet, smtp_server):
    s = early_server(smtp_server, {'CONNECT': ['220 first', '450 busy', None]})
    m = relay(martlet, s.port, **EARLY)
    twice(m, s)
    submit(m, 'c@relay.test')
    wait_for(lambda: lines_of(m, r' == c@relay.test .*: 450 busy'), m.logs)
    # Its log line comes a moment before others may have it.
    wait_for(lambda: m.run('-qff') is not None and len(s.messages) == 2, m.logs)


def test_a_busy_banner_is_no_refusal_of_tls(martlet, smtp_server, authority):
    s = smtp_server({'CONNECT': ['220 first', '450 busy', None]}, keywords=('PIPELINING', 'PIPECONNECT'), tls=authority.issue('sink.test'))
    m = relay(martlet, s.port, main=EARLY['main'], client='hosts_pipe_connect = *\n  tls_verify_certificates =')
    twice(m, s)
    submit(m, 'c@relay.test')
    wait_for(lambda: lines_of(m, r' == c@relay.test .*: 450 busy'), m.logs)
    # Its log line comes a moment before others may have it.
    wait_for(lambda: m.run('-qff') is not None and len(s.messages) == 2, m.logs)
    assert all(x['tls'] for x in s.messages)


def test_name_of_our_end_keeps_us_from_being_early(martlet, smtp_server):
    s = early_server(smtp_server)
    m = relay(martlet, s.port, main=EARLY['main'], client='hosts_pipe_connect = *\n  helo_data = ${if def:sending_ip_address {x.test}{y.test}}')
    twice(m, s)
    submit(m, 'c@relay.test')
    wait_for(lambda: len(lines_of(m, r' => [ac]@relay.test')) == 2, m.logs)
    assert not lines_of(m, r' L\* ') and s.messages[1]['hello'] == 'x.test'


@pytest.mark.parametrize('options, good', [('', True), ('auth=name name=fred pass=s3cret', True), ('auth=name name=fred pass=wrong', False)])
def test_microsocks(martlet, smtp_server, scratch, options, good):
    program = shutil.which('microsocks')
    if not program:
        pytest.skip('microsocks is not installed')
    s = smtp_server()
    port = free_port()
    log = open(os.path.join(scratch, 'socks.log'), 'wb')
    proxy = subprocess.Popen([program, '-i', '127.0.0.1', '-p', str(port)] + (['-u', 'fred', '-P', 's3cret'] if options else []),
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(lambda: listening('127.0.0.1', port), 'microsocks')
        m = relay(martlet, s.port, main='log_selector = +proxy', client=f'socks_proxy = 127.0.0.1 port={port} {options}')
        submit(m, 'a@relay.test')
        if good:
            wait_for(lambda: s.messages, m.logs)
            wait_for(lambda: lines_of(m, r' => a@relay.test .*PRX=\[127.0.0.1\]'), m.logs)
        else:
            wait_for(lambda: lines_of(m, r' == a@relay.test .*defer \(-47\).*SOCKS proxy'), m.logs)
            assert s.sessions == 0
    finally:
        proxy.terminate()
        proxy.wait()


def test_proxies_are_tried_by_priority(martlet, smtp_server):
    s = smtp_server()
    dead = free_port()
    m = relay(martlet, s.port, client=f'socks_proxy = 127.0.0.1 port={dead} pri=2 : 127.0.0.1 port={dead}')
    submit(m, 'a@relay.test')
    wait_for(lambda: lines_of(m, r' == a@relay.test .*SOCKS proxy \[127.0.0.1\]:%d: Connection refused' % dead), m.logs)


EVENTS = '''
ev:
  accept condition = ${if eq{$event_name}{VETO}}
         message = no
  accept logwrite = event $event_name <$event_data>
'''


@pytest.mark.parametrize('veto', ['tcp:connect', 'smtp:connect'])
def test_a_veto_defers_and_nothing_is_sent(martlet, smtp_server, veto):
    s = smtp_server()
    m = relay(martlet, s.port, acl=EVENTS.replace('VETO', veto), client='event_action = ${acl{ev}}')
    submit(m, 'a@relay.test')
    wait_for(lambda: lines_of(m, r' == a@relay.test '), m.logs)
    assert not s.messages and not [c for c in s.commands if c.startswith(('EHLO', 'MAIL'))]


def test_certificates_are_shown_and_can_be_refused(martlet, smtp_server, authority):
    s = smtp_server(tls=authority.issue('sink.test'))
    client = (f'event_action = ${{acl{{ev}}}}\n  tls_verify_certificates = {authority.certificate}\n  tls_verify_cert_hostnames =\n'
              '  hosts_require_tls = *\n  tls_verify_hosts = *')
    m = relay(martlet, s.port, acl=EVENTS.replace('VETO', 'none'), client=client)
    submit(m, 'a@relay.test')
    wait_for(lambda: s.messages, m.logs)
    assert [x.split(' event ')[1] for x in lines_of(m, r'tls:cert')] == ['tls:cert <1>', 'tls:cert <0>']
    m = relay(martlet, s.port, acl=EVENTS.replace('VETO', 'tls:cert'), client=client)
    submit(m, 'a@relay.test')
    wait_for(lambda: lines_of(m, r' == a@relay.test .*TLS session'), m.logs)
    assert len(s.messages) == 1


def test_an_event_that_hangs_does_not_keep_mail(martlet, smtp_server):
    silent = socket.create_server(('127.0.0.1', 0))
    s = smtp_server()
    m = relay(martlet, s.port, allow_panic='failed to expand event_action',
              client='event_action = ${if eq{$event_name}{msg:delivery}{${readsocket{inet:127.0.0.1:%d}{x}{3600s}}}}' % silent.getsockname()[1])
    submit(m, 'a@relay.test')
    wait_for(lambda: lines_of(m, r'Completed'), m.logs)
    assert lines_of(m, r'failed to expand event_action msg:delivery in remote_smtp: it takes more than 5 seconds')
    silent.close()


@pytest.mark.peers
@pytest.mark.parametrize('extra', ['', 'dsn_lasthop'])
def test_notice_parameters_reach_exim(martlet, exim, extra):
    e = exim(main='dsn_advertise_hosts = *\nqueue_only', acl='  accept\nunused:')
    m = relay(martlet, e.port, main='dsn_advertise_hosts = 127.0.0.1', routers=f'''
lasthop:
  driver = manualroute
  domains = relay.test
  transport = remote_smtp
  route_list = * 127.0.0.1::{e.port}
  self = send
  {extra}
  no_more
''')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<u1@local.test> RET=HDRS ENVID=a+2Bb')
        c.expect(250, 'RCPT TO:<x@relay.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;y+2Bz@relay.test')
        c.expect(354, 'DATA')
        assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
    wait_for(lambda: lines_of(m, r' => x@relay.test'), m.logs)
    # What Exim keeps of it in its spool.
    def header():
        found = glob.glob(e.place.path('/var/spool/exim4/input/**/*-H'), recursive=True)
        return found and read(found[0])
    text = wait_for(header, e.log)
    if extra:
        assert 'rfc822;y+2Bz@relay.test' not in text
        wait_for(lambda: m.mail('u1'), m.logs)
        assert b'Action: relayed' in m.mail('u1')[0]
    else:
        assert '-dsn_envid a+2Bb' in text and '-dsn_ret 2' in text and 'rfc822;y+2Bz@relay.test 23,12' in text


def move_pair(source, target, uid, short=False):
    """What a scanner does when it has looked: the body first, the header last, which makes the message one of the queue's.
    short: with an id in the form that Exim had before 4.97, in the files too."""
    names = sorted(os.listdir(source))
    assert [n[-2:] for n in names] == ['-D', '-H'] and len({n[:-2] for n in names}) == 1, names
    os.makedirs(target, exist_ok=True)
    os.chown(target, uid, uid)
    ident = names[0][:-2]
    new = re.sub(r'^(\w{6})-\w{5}(\w{6})-(\w\w)\w\w$', r'\1-\2-\3', ident) if short else ident
    for end in ('-D', '-H'):
        with open(os.path.join(source, ident + end), 'rb') as f:
            first, rest = f.read().split(b'\n', 1)
        assert first == (ident + end).encode()
        path = os.path.join(target, new + end)
        with open(path, 'wb') as f:
            f.write((new + end).encode() + b'\n' + rest)
        os.chown(path, uid, uid)
        os.chmod(path, 0o640)
    return new


def scanned(martlet, **kw):
    """A Martlet that hands everything to the scanner's directory; gives that directory when a message is there."""
    m = martlet(acl_rcpt='  warn set acl_m_note = kept\n  accept', relay_to='*', arguments=[],
                routers='scan:\n  driver = accept\n  transport = scan\n',
                transports='scan:\n  driver = queuefile\n  directory = @DIR@/mail/scan\n', **kw)
    m._own('mail/scan')
    return m


def test_queuefile_into_another_martlet(martlet):
    m = scanned(martlet)
    submit(m, 'u1@local.test', 'u2@local.test', data='Subject: through the scanner\r\n\r\n' + 'x' * 500 + '\r\n')
    wait_for(lambda: lines_of(m, r'Completed'), m.logs)
    n = martlet(arguments=[])
    name = move_pair(m.outside('mail/scan'), os.path.join(n.directory, n.spool_dir, 'input'), n.uid)
    n.run('-M', name)
    for user in ('u1', 'u2'):
        n.wait_mail(user)
        text = n.mail(user)[0]
        assert b'Subject: through the scanner' in text and b'x' * 500 in text and b'Return-path: <a@b.test>' in text


@pytest.mark.peers
def test_queuefile_into_exim(martlet, exim):
    m = scanned(martlet)
    submit(m, 'u1@exim.test', data='Subject: through the scanner\r\n\r\n' + 'y' * 500 + '\r\n')
    wait_for(lambda: lines_of(m, r'Completed'), m.logs)
    e = exim()
    name = move_pair(m.outside('mail/scan'), e.place.path('/var/spool/exim4/input'), e.place.uid('Debian-exim'), short=True)
    e.exim('-M', name)
    wait_for(lambda: os.path.isdir(os.path.join(e.maildir('u1'), 'new')) and os.listdir(os.path.join(e.maildir('u1'), 'new')), e.log)
    text = read(glob.glob(os.path.join(e.maildir('u1'), 'new', '*'))[0])
    assert 'Subject: through the scanner' in text and 'y' * 500 in text
