"""PROXY protocol (hosts_proxy): haproxy in front, and headers made by hand."""
import ipaddress
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess

import pytest

from support.smtp import Client, Closed
from support.util import free_port, listening, wait_for, write

SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'
MAIN = '''
hosts_proxy = 127.0.0.2 : 127.0.0.1 : ::1
log_selector = +proxy +incoming_port +smtp_connection
acl_smtp_connect = acl_connect
'''
ACL = '''
acl_connect:
  accept logwrite = proxy=$proxy_session [$proxy_local_address]:$proxy_local_port [$proxy_external_address]:$proxy_external_port id=$proxy_unique_id client=[$sender_host_address]:$sender_host_port ours=[$received_ip_address]:$received_port
'''


def v2(source, target, sport=1111, dport=25, command=1, fields=b'', length=None):
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(target)
    body = a.packed + b.packed + struct.pack('!2H', sport, dport) + fields
    return SIGNATURE + struct.pack('!BBH', 0x20 | command, 0x11 if a.version == 4 else 0x21, len(body) if length is None else length) + body


def speak(port, header, timeout=60):
    c = Client(port, banner=False, timeout=timeout)
    c.send(header)
    c.greeting = c.reply()
    return c


@pytest.fixture
def haproxy(scratch):
    """haproxy(port of the server, options of its server line): its port."""
    running = []

    def start(server_port, options, address='127.0.0.1', family='127.0.0.1'):
        port = free_port()
        conf = os.path.join(scratch, f'haproxy{len(running)}.cfg')
        listen = f'{family}:{port}' if ':' not in family else f'[{family}]:{port}'
        write(conf, f'''
global
  maxconn 100
defaults
  mode tcp
  timeout connect 20s
  timeout client 60s
  timeout server 60s
listen smtp
  bind {listen}
  server martlet {address}:{server_port} {options}
''')
        running.append(subprocess.Popen([shutil.which('haproxy') or '/usr/sbin/haproxy', '-db', '-f', conf],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_for(lambda: listening(family, port), 'haproxy to listen')
        return port
    yield start
    for p in running:
        p.terminate()
        p.wait()


@pytest.mark.parametrize('version', ['send-proxy', 'send-proxy-v2', 'send-proxy-v2 proxy-v2-options unique-id,crc32c'])
def test_haproxy(martlet, haproxy, version):
    m = martlet(main=MAIN, acl=ACL)
    port = haproxy(m.port, version)
    with Client(port, source='127.0.0.9') as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
        own = c.sock.getsockname()[1]
    line = m.wait_log(r'<= a@b\.test.*')[0]
    assert f'H=(client.test) [127.0.0.9]:{own} P=esmtp PRX=127.0.0.1 ' in line, line
    assert re.search(rf'proxy=yes \[127\.0\.0\.1\]:\d+ \[127\.0\.0\.1\]:{port} id=\S* client=\[127\.0\.0\.9\]:{own} '
                     rf'ours=\[127\.0\.0\.1\]:{m.port}', m.log()), m.log()


@pytest.mark.parametrize('version', ['send-proxy', 'send-proxy-v2'])
def test_haproxy_ipv6(martlet, haproxy, version):
    m = martlet(main=MAIN, acl=ACL)
    port = haproxy(m.port, version, family='::1')
    with Client(port, address='::1') as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    # The system's hosts file may have a name for ::1.
    assert re.search(r' H=(\S+ )?\(client\.test\) \[::1\]:', m.wait_log(r'<= a@b\.test.*')[0])
    assert f' [::1]:{port} id=' in m.log()


def test_haproxy_health_checks(martlet, haproxy):
    m = martlet(main=MAIN, acl=ACL)
    haproxy(m.port, 'check inter 200ms send-proxy-v2 check-send-proxy')
    m.wait_log(r'proxy=yes \[127\.0\.0\.1\]:\d+ \[127\.0\.0\.1\]:\d+ id= client=\[127\.0\.0\.1\]')
    assert 'negotiation failed' not in m.log()


@pytest.mark.parametrize('on_connect', [False, True])
@pytest.mark.parametrize('address, version', [('127.0.0.1', 'send-proxy'), ('127.0.0.1', 'send-proxy-v2'), ('::1', 'send-proxy'), ('::1', 'send-proxy-v2')])
def test_tls_behind_haproxy(martlet, haproxy, authority, on_connect, address, version):
    m = martlet(main=MAIN + ('tls_on_connect_ports = @PORT@\n' if on_connect else '') + 'tls_try_verify_hosts = *\n'
                + f'tls_verify_certificates = {authority.certificate}\n', acl=ACL, tls=authority.issue('mx.martlet.test'))
    port = haproxy(m.port, version, family=address)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*authority.issue('client.test'))
    client = '127.0.0.9' if address == '127.0.0.1' else address
    c = Client(port, address, banner=not on_connect, source=client)
    if on_connect:
        c.sock = context.wrap_socket(c.sock)
        assert c.reply()[0] == 220
    else:
        c.ehlo()
        c.starttls(context)
    assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    line = m.wait_log(r'<= a@b\.test.*')[0]
    assert f'(client.test) [{client}]:' in line and ' P=esmtps ' in line and ' CV=yes ' in line and ' PRX=127.0.0.1 ' in line, line
    # The system's hosts file may have a name for ::1.
    ip = re.escape(client.encode())
    assert re.search(rb'Received: from (\[' + ip + rb'\] \(port=\d+|\S+ \(\[' + ip + rb'\]:\d+) helo=client\.test\)\n'
                     rb'\tby mx\.martlet\.test with esmtps', m.wait_mail('u0')[0])
    c.close()


def test_starttls_and_header_with_commands(martlet, authority):
    m = martlet(main=MAIN + 'smtp_enforce_sync = false\n', acl=ACL, tls=authority.issue('mx.martlet.test'))
    # In one segment with what follows.
    c = Client(m.port, banner=False)
    c.send(b'PROXY TCP4 192.0.2.77 198.51.100.1 4321 25\r\nEHLO one.test\r\n')
    assert c.reply()[0] == 220 and '192.0.2.77' in c.reply()[1]
    c.starttls()
    assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    assert 'H=(client.test) [192.0.2.77]:4321 P=esmtps' in m.wait_log(r'<= a@b\.test.*')[0]
    c.close()
    # Byte after byte.
    for header in [b'PROXY TCP6 2001:db8::7 2001:db8::1 4322 25\r\n', v2('192.0.2.78', '198.51.100.1')]:
        c = Client(m.port, banner=False)
        for i in range(len(header)):
            c.send(header[i:i + 1])
        assert c.reply()[0] == 220
        assert ('2001:db8::7' if header[:1] == b'P' else '192.0.2.78') in c.expect(250, 'EHLO x.test')[1]
        c.close()


def test_local_and_unknown(martlet):
    m = martlet(main=MAIN, acl=ACL)
    for header in [b'PROXY UNKNOWN\r\n', SIGNATURE + b'\x20\0\0\0', SIGNATURE + b'\x21\0\0\x03abc']:
        with speak(m.port, header) as c:
            assert '[127.0.0.1]' in c.expect(250, 'EHLO x.test')[1]
    found = m.wait_log(rf'proxy=yes \[127\.0\.0\.1\]:\d+ \[127\.0\.0\.1\]:{m.port} id= client=\[127\.0\.0\.1\]', count=3)
    assert len(found) == 3


def test_fields_are_checked(martlet):
    m = martlet(main=MAIN, acl=ACL)
    with speak(m.port, v2('192.0.2.1', '192.0.2.2', fields=b'\4\0\x05zzzzz\5\0\x06id-one')):
        m.wait_log(r'id=id-one client=\[192\.0\.2\.1\]:1111')
    with speak(m.port, v2('192.0.2.1', '192.0.2.2', fields=b'\3\0\x04zzzz')) as c:
        assert c.cmd('EHLO x')[0] == 503
    m.wait_log(r'proxy negotiation failed: bad checksum from \[127\.0\.0\.1\]')


BAD = [b'EHLO x.test\r\n', b'PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n', b'PROXY TCP4 1.2.3.4\r\n', b'PROXY TCP4 ::1 1.2.3.4 1 2\r\n',
       b'PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n', b'PROXY TCP4 1.2.3.4 1.2.3.4 1 2' + b'x' * 200, b'PROXY \0\0\0\0\0\0\0\0\0\0\0\0\r\n',
       b'\0' * 20, SIGNATURE + b'\x11\x11\0\x0c' + b'x' * 12, SIGNATURE + b'\x25\x11\0\x0c' + b'x' * 12,
       SIGNATURE + b'\x21\x11\0\x08' + b'x' * 8, SIGNATURE + b'\x21\x41\0\x0c' + b'x' * 12, SIGNATURE + b'\x21\x11\xff\xff' + b'x' * 3000,
       SIGNATURE + b'\x21\x31\0\xd8' + b'x' * 216]
HALF = [b'PROXY TCP4 1.2', SIGNATURE[:5], b'']


@pytest.mark.parametrize('headers, timeout', [(BAD, 60), (HALF, 1)])
def test_bad_headers(martlet, headers, timeout):
    m = martlet(main=MAIN + f'proxy_protocol_timeout = {timeout}s\n', acl=ACL)
    for header in headers:
        with speak(m.port, header) as c:
            assert c.greeting[0] == 220, header
            for command in ['EHLO x.test', 'MAIL FROM:<a@b.test>', 'STARTTLS', 'rubbish']:
                assert c.cmd(command) == (503, 'Command refused, required Proxy negotiation failed'), header
            assert c.cmd('QUIT')[0] == 221
    assert m.log().count('proxy=yes []:0 []:0 ') == len(headers)
    assert len(re.findall('proxy negotiation failed: ', m.log())) == len(headers)
    assert m.log().count('proxy negotiation failed: timeout from [127.0.0.1]') == (len(headers) if headers is HALF else 0)


def test_fail_close(martlet):
    m = martlet(main=MAIN + 'proxy_fail_close\n', acl=ACL)
    c = Client(m.port, banner=False)
    c.send(b'EHLO x.test\r\n')
    assert c.reply()[0] == 421 and c.at_end()


def test_others_need_no_header(martlet):
    m = martlet(main=MAIN.replace(' : 127.0.0.1', ''), acl=ACL)
    with Client(m.port) as c:
        assert c.cmd('PROXY TCP4 1.2.3.4 1.2.3.4 1 2')[0] == 500
    assert 'proxy=no []:0 []:0 id= ' in m.log()
    c = Client(m.port, banner=False)
    c.send('PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n')
    try:
        assert c.reply()[0] in (220, 554)
    except Closed:
        pass
    c.close()


def test_many_half_headers(martlet):
    m = martlet(main=MAIN + 'proxy_protocol_timeout = 2s\n', acl=ACL)
    before, socks = m.alive(), []
    for i in range(200):
        socks.append(socket.create_connection(('127.0.0.1', m.port), 60))
        socks[-1].sendall(SIGNATURE[:i % 12])
    wait_for(lambda: m.log().count('proxy negotiation failed: timeout') == 200, m.logs)
    for s in socks:
        s.close()
    wait_for(lambda: m.log().count(' lost D=') == 200, m.logs)
    assert m.alive() == before


def test_limit_counts_the_proxy(martlet):
    m = martlet(main=MAIN + 'smtp_accept_max_per_host = 1\n', acl=ACL)
    with speak(m.port, b'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n'):
        c = Client(m.port, banner=False)
        assert c.reply()[0] == 421
        c.close()
