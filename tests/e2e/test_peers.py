"""The partners among themselves: what goes wrong here is no fault of Martlet."""
import socket
import struct
import subprocess

import pytest

from support import dns
from support.postfix import Source
from support.smtp import Client
from support.util import maildir, wait_for

pytestmark = [pytest.mark.peers]


def swaks(port, *args):
    return subprocess.run(['swaks', '--server', '127.0.0.1', '--port', str(port), '--helo', 'client.test', *args],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_swaks_to_exim(exim):
    e = exim()
    done = swaks(e.port, '--from', 'a@b.test', '--to', 'u1@exim.test', '--body', 'to exim')
    assert done.returncode == 0, done.stdout
    wait_for(lambda: maildir(e.maildir('u1')), e.log)
    assert b'to exim' in maildir(e.maildir('u1'))[0]


def test_swaks_to_exim_tls_auth(exim, authority):
    e = exim(tls=authority.issue('exim.test'))
    done = swaks(e.port, '--from', 'a@b.test', '--to', 'u1@exim.test', '--tls', '--tls-verify', '--tls-ca-path',
                 authority.certificate, '--auth', 'PLAIN', '--auth-user', 'tester', '--auth-password', 'secret')
    assert done.returncode == 0, done.stdout
    wait_for(lambda: maildir(e.maildir('u1')), e.log)
    assert 'A=plain_server:tester' in e.log()


def test_swaks_to_postfix(postfix):
    p = postfix()
    done = swaks(p.port, '--from', 'a@b.test', '--to', 'u2@postfix.test', '--body', 'to postfix')
    assert done.returncode == 0, done.stdout
    wait_for(lambda: maildir(p.maildir('u2')), p.log)
    assert b'to postfix' in maildir(p.maildir('u2'))[0]


def test_exim_to_postfix_over_tls(exim, postfix, authority):
    p = postfix(tls=authority.issue('postfix.test'))
    e = exim(smarthost=f'127.0.0.1::{p.port}', client='hosts_require_tls = *')
    with Client(e.port) as c:
        assert c.mail('a@b.test', 'u3@postfix.test', data='Subject: x\r\n\r\nvia exim\r\n')[0] == 250
    wait_for(lambda: maildir(p.maildir('u3')), lambda: e.log() + p.log())
    wait_for(lambda: 'X=TLS' in e.log(), e.log) # its delivery line comes after Postfix has the message


def test_postfix_to_exim_over_tls(exim, postfix, authority):
    e = exim(tls=authority.issue('exim.test'))
    p = postfix(relayhost=f'[127.0.0.1]:{e.port}', client_tls='encrypt')
    with Client(p.port) as c:
        assert c.mail('a@b.test', 'u4@exim.test', data='Subject: x\r\n\r\nvia postfix\r\n')[0] == 250
    wait_for(lambda: maildir(e.maildir('u4')), lambda: e.log() + p.log())
    assert 'X=TLS' in e.log()


def test_source_to_postfix_to_sink(peers, postfix, sink):
    s = sink()
    p = postfix(relayhost=f'[127.0.0.1]:{s.port}')
    Source.run(peers, p.port, 'x@elsewhere.test', 20, sessions=5)
    wait_for(lambda: p.log().count('status=sent') == 20 and p.queue_is_empty(), p.log)


def test_exim_to_scripted_server(exim, smtp_server):
    s = smtp_server({'RCPT': ['450 later', None]})
    e = exim(smarthost=f'127.0.0.1::{s.port}')
    with Client(e.port) as c:
        assert c.mail('a@b.test', 'x@elsewhere.test')[0] == 250
    wait_for(lambda: 'SMTP error from remote mail server after RCPT' in e.log(), e.log)

    def run_again():
        # A run passes over a message that the process of its first delivery has still locked.
        e.exim('-qff')
        return s.messages

    wait_for(run_again, e.log, pause=0.2)
    assert s.messages[0]['rcpt'] == ['<x@elsewhere.test>']


def test_exim_asks_the_nameserver(exim, nameserver):
    nameserver.host('a.zone.test', '192.0.2.7').add('zone.test', 'MX', (10, 'a.zone.test')).add('t.zone.test', 'TXT', 'x' * 200)
    nameserver.trouble['broken.test'] = 'SERVFAIL'
    e = exim(resolver=nameserver.address)
    look = '${lookup dnsdb{%s}{$value}{none}}'
    assert e.exim('-be', look % 'mx=zone.test') == '10 a.zone.test\n'
    assert e.exim('-be', look % 'ptr=192.0.2.7') == 'a.zone.test\n'
    assert e.exim('-be', look % 'txt=t.zone.test') == 'x' * 200 + '\n'
    assert e.exim('-be', look % 'a=nothing.zone.test') == 'none\n'
    assert 'gave DEFER' in e.exim('-be', look % 'defer_strict,a=broken.test', check=False)


def ask(server, name, kind, tcp=False, patience=60):
    question = struct.pack('!6H', 7, 0x100, 1, 0, 0, 0) + dns.encode_name(name) + struct.pack('!HH', dns.TYPES[kind], 1)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        s.settimeout(patience)
        s.connect((server.address, server.port))
        s.sendall((struct.pack('!H', len(question)) if tcp else b'') + question)
        answer = s.recv(65535)
    answer = answer[2:] if tcp else answer
    _, flags, _, count = struct.unpack('!4H', answer[:8])
    return flags & 15, bool(flags & 0x200), count


def test_nameserver_answers():
    server = dns.Nameserver()
    try:
        server.add('big.test', 'TXT', *['y' * 250] * 10).add('www.test', 'CNAME', 'h.test').host('h.test', '192.0.2.1', '2001:db8::1')
        server.trouble['refused.test'] = 'REFUSED'
        server.trouble['silent.test'] = 'TIMEOUT'
        assert ask(server, 'h.test', 'A') == (0, False, 1)
        assert ask(server, 'h.test', 'MX') == (0, False, 0)
        assert ask(server, 'www.test', 'AAAA') == (0, False, 2)
        assert ask(server, 'test', 'A') == (0, False, 0)
        assert ask(server, 'no.test', 'A') == (3, False, 0)
        assert ask(server, 'refused.test', 'A')[0] == 5
        assert ask(server, 'big.test', 'TXT') == (0, True, 0)
        assert ask(server, 'big.test', 'TXT', tcp=True) == (0, False, 10)
        with pytest.raises(TimeoutError):
            ask(server, 'silent.test', 'A', patience=2)
    finally:
        server.stop()
