"""A next hop that stalls, refuses or resets the connection in each phase of the dialogue: the log says so, the retry time is set
and kept, and a forced run delivers once."""
import re
import socket

import pytest

HEADER = 'Subject: x\n\nx\n'
PHASES = ['CONNECT', 'EHLO', 'MAIL', 'RCPT', 'DATA', 'DOT']
AFTER = {'CONNECT': r'initial connection', 'EHLO': r'(EHLO|HELO) mx\.martlet\.test', 'MAIL': r'(pipelined )?MAIL FROM:<s@b\.test>.*',
         'RCPT': r'(pipelined )?RCPT TO:<a@relay\.test>', 'DATA': r'(pipelined )?DATA', 'DOT': r'(pipelined )?end of data.*'}


def stall(line, session):
    """Until the client gives up."""
    while session.sock.recv(65536):
        pass
    return 'DROP'


def reset(line, session):
    session.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
    session.file.close()
    session.sock.close()
    return 'DROP'


def send(martlet, hop, *options, limit='30s'):
    client = '\n  '.join([f'port = {hop.port}', f'command_timeout = {limit}', f'final_timeout = {limit}', *options])
    m = martlet(daemon=False, smarthost='127.0.0.1', client=client, retry='* * F,1d,1h')
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', input=HEADER)
    return m


def kept_and_delivered_once(m, hop):
    """It waits for its retry time; then, or when forced, it goes."""
    assert len(m.queue()) == 1 and not hop.messages
    tried = hop.sessions
    assert tried == 1, m.logs()
    m.run('-q')
    assert hop.sessions == tried, 'tried before its time' + m.logs()
    m.run('-qf')
    assert len(hop.messages) == 1 and m.queue() == [] and ' => a@relay.test ' in m.log(), m.logs()


@pytest.mark.parametrize('phase, keywords', [(p, ()) for p in PHASES] + [('RCPT', ('PIPELINING',)), ('DOT', ('CHUNKING',))])
def test_stalls(martlet, smtp_server, phase, keywords):
    """The limit leaves a busy machine the time for what does not stall."""
    hop = smtp_server({phase: [stall, None]}, keywords=keywords)
    m = send(martlet, hop, limit='4s')
    assert re.search(rf'== a@relay\.test R=relay T=remote_smtp defer \(110\).*: SMTP timeout after {AFTER[phase]}', m.log()), m.logs()
    kept_and_delivered_once(m, hop)


@pytest.mark.parametrize('phase', PHASES)
def test_refuses_for_now(martlet, smtp_server, phase):
    hop = smtp_server({phase: ['451 4.3.0 not now', '451 4.3.0 not now', None] if phase == 'EHLO' else ['451 4.3.0 not now', None],
                       'HELO': ['451 4.3.0 not now', None]}, keywords=())
    m = send(martlet, hop)
    assert re.search(rf'== a@relay\.test R=relay T=remote_smtp defer \(-?\d+\).*: SMTP error from remote mail server after {AFTER[phase]}: '
                     r'451 4\.3\.0 not now', m.log()), m.logs()
    kept_and_delivered_once(m, hop)


@pytest.mark.parametrize('phase', PHASES)
def test_refuses_for_good(martlet, smtp_server, phase):
    hop = smtp_server({phase: '550 5.7.1 never', 'HELO': '550 5.7.1 never'} if phase == 'EHLO' else {phase: '550 5.7.1 never'}, keywords=())
    m = martlet(daemon=False, smarthost='127.0.0.1', client=f'port = {hop.port}')
    m.run('-odi', '-f', 'u1@local.test', 'a@relay.test', input=HEADER)
    assert re.search(r'\*\* a@relay\.test R=relay T=remote_smtp H=127\.0\.0\.1 \[127\.0\.0\.1\].* : SMTP error from remote mail server after '
                     + AFTER[phase].replace('s@b', 'u1@local') + r': 550 5\.7\.1 never', m.log()), m.logs()
    (bounce,) = m.mail('u1')
    assert b'550 5.7.1 never' in bounce and b'X-Failed-Recipients: a@relay.test' in bounce and m.queue() == [] and not hop.messages


@pytest.mark.parametrize('phase', PHASES)
def test_resets(martlet, smtp_server, phase):
    hop = smtp_server({phase: [reset, None]})
    m = send(martlet, hop)
    assert re.search(r'== a@relay\.test R=relay T=remote_smtp defer \(-?\d+\).*'
                     r'(Connection reset by peer|Remote host closed connection in response to)', m.log()), m.logs()
    kept_and_delivered_once(m, hop)
