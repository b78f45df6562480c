"""tls_early_banner_hosts: on ports with TLS from the first byte the banner is on its way before the client's Finished is there."""
import socket
import ssl

import pytest

from support.held_tls import Held
from support.util import wait_for


def server(martlet, authority, main='tls_early_banner_hosts = 127.0.0.1\n', **gaps):
    return martlet(tls=authority.issue('mx.martlet.test'), main='tls_on_connect_ports = @PORT@\nlog_selector = +tls_sni\n' + main, **gaps)


def test_the_banner_comes_first(martlet, authority):
    m = server(martlet, authority, relay_to='r.test', arguments=['-odq'],
               main='tls_early_banner_hosts = 127.0.0.1\nsmtp_banner = $tls_in_cipher $tls_in_sni ready\n')
    c = Held(m.port)
    assert c.read().startswith(b'220 TLS1.3:TLS_AES_256_GCM_SHA384:256 mx.martlet.test ready')
    c.finish()
    assert c.say(b'EHLO client.test').startswith(b'250-')
    for line in (b'MAIL FROM:<a@b.test>', b'RCPT TO:<u@r.test>'):
        assert c.say(line).startswith(b'250')
    assert c.say(b'DATA').startswith(b'354')
    assert c.say(b'Subject: x\r\n\r\n' + b'x' * 70 + b'\r\n.').startswith(b'250')
    assert c.say(b'QUIT').startswith(b'221')
    wait_for(lambda: ' <= a@b.test' in m.log(), m.logs)
    assert 'X=TLS1.3:TLS_AES_256_GCM_SHA384:256' in m.log() and 'SNI=mx.martlet.test' in m.log()


@pytest.mark.parametrize('main', ['tls_early_banner_hosts = 192.0.2.1\n', 'tls_early_banner_hosts = *\ntls_try_verify_hosts = *\n'])
def test_others_wait_for_it(martlet, authority, main):
    """Hosts that the option does not name, and those whose certificates are asked for."""
    c = Held(server(martlet, authority, main).port)
    assert c.hears_nothing()
    c.finish()
    assert c.read().startswith(b'220 ')


def test_older_tls_is_as_ever(martlet, authority):
    c = Held(server(martlet, authority).port, ssl.TLSVersion.TLSv1_2)
    c.finish()
    assert c.read().startswith(b'220 ')
    assert c.say(b'QUIT').startswith(b'221')


def test_a_session_is_resumed(martlet, authority):
    m = server(martlet, authority, main='tls_early_banner_hosts = *\ntls_resumption_hosts = *\n')
    c = Held(m.port)
    c.read()
    c.finish()
    c.say(b'QUIT')
    again = ssl.MemoryBIO(), ssl.MemoryBIO()
    second = Held.__new__(Held)
    second.context, (second.incoming, second.outgoing) = c.context, again
    second.tls = c.context.wrap_bio(*again, server_hostname='mx.martlet.test', session=c.tls.session)
    second.socket = socket.create_connection(('127.0.0.1', m.port), 30)
    second.step()
    second.finish()
    while not second.step():
        second.take()
    assert second.tls.session_reused and second.read().startswith(b'220 ')
    second.finish()
    assert second.say(b'QUIT').startswith(b'221')


def test_the_rest_of_the_handshake_may_be_garbage_or_missing(martlet, authority):
    m = server(martlet, authority, main='tls_early_banner_hosts = *\nsmtp_receive_timeout = 5s\n')
    c = Held(m.port)
    c.read()
    c.socket.sendall(b'\x17\x03\x03\x00\x20' + b'x' * 32)
    # An alert, then the end; nothing that was said is taken for a command.
    while True:
        data = c.socket.recv(65536)
        if not data:
            break
        assert data[0] in (0x15, 0x17)
    c = Held(m.port)
    c.read()
    c.socket.settimeout(30)
    while c.socket.recv(65536):
        pass
    c = Held(m.port)
    c.read()
    c.finish()
    assert c.say(b'QUIT').startswith(b'221')
