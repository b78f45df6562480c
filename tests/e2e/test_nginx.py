"""nginx in front: as a mail proxy that tells of its clients with XCLIENT, and as a stream proxy with the PROXY protocol."""
import http.server
import os
import shutil
import subprocess
import threading

import pytest

from support.smtp import Client
from support.util import free_port, listening, read, wait_for, write

MODULES = '/usr/lib/nginx/modules'
NGINX = shutil.which('nginx') or '/usr/sbin/nginx'


@pytest.fixture
def nginx(scratch):
    """nginx(text): runs with this configuration's blocks; gives nothing back, the text names the ports."""
    running = []

    def start(text, port, address='127.0.0.1'):
        directory = os.path.join(scratch, f'nginx{len(running)}')
        os.makedirs(directory)
        conf = write(os.path.join(directory, 'conf'), f'''
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error info;
load_module {MODULES}/ngx_mail_module.so;
load_module {MODULES}/ngx_stream_module.so;
events {{ worker_connections 100; }}
{text}
''')
        running.append(subprocess.Popen([NGINX, '-p', directory, '-e', f'{directory}/error', '-c', conf], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_for(lambda: listening(address, port), lambda: 'nginx to listen: ' + read(f'{directory}/error'))
    yield start
    for p in running:
        p.terminate()
        p.wait()


@pytest.fixture
def backend():
    """backend(port): the URL of what nginx asks for the server of a client: always that port."""
    running = []

    def start(port):
        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                for name, value in (('Auth-Status', 'OK'), ('Auth-Server', '127.0.0.1'), ('Auth-Port', str(port))):
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Answer)
        running.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f'127.0.0.1:{server.server_port}/'
    yield start
    for s in running:
        s.shutdown()
        s.server_close()


def mail_proxy(nginx, url, more='smtp_auth none;'):
    port = free_port()
    nginx(f'mail {{ server {{ listen 127.0.0.1:{port}; protocol smtp; server_name nginx.test; auth_http {url}; proxy on; xclient on; {more} }} }}', port)
    return port


SEEN = '  warn logwrite = $proxy_session [$proxy_local_address] [$sender_host_address]:$sender_host_port $sender_helo_name\n'


def test_xclient(martlet, nginx, backend):
    m = martlet(main='hosts_xclient = 127.0.0.1\nxclient_without_port\nlog_selector = +proxy\n', acl_rcpt=SEEN)
    port = mail_proxy(nginx, backend(m.port))
    with Client(port, source='127.0.0.9') as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
        assert c.cmd('QUIT')[0] == 221
    assert 'H=(client.test) [127.0.0.9] P=esmtp PRX=127.0.0.1 ' in m.wait_log(r'<= a@b\.test.*')[0]
    assert 'yes [127.0.0.1] [127.0.0.9]:0 client.test' in m.log()
    assert b'from [127.0.0.9] (helo=client.test)' in m.wait_mail('u0')[0]


def test_xclient_with_login(martlet, nginx, backend):
    """nginx has asked for the password itself, and tells whose it was."""
    m = martlet(main='hosts_xclient = 127.0.0.1\nxclient_without_port\n', acl_rcpt='  accept authenticated = xclient\n  deny\n')
    port = mail_proxy(nginx, backend(m.port), 'smtp_auth plain;')
    with Client(port, source='127.0.0.9') as c:
        c.ehlo()
        c.expect(235, 'AUTH PLAIN AGpvZQBzZWNyZXQ=')
        assert c.mail('a@b.test', 'u0@local.test', hello=False)[0] == 250
    assert '[127.0.0.9] P=esmtpa A=xclient:joe ' in m.wait_log(r'<= a@b\.test.*')[0]


def test_xclient_port_is_wanted_by_default(martlet, nginx, backend):
    m = martlet(main='hosts_xclient = 127.0.0.1\nlog_selector = +smtp_syntax_error\n')
    port = mail_proxy(nginx, backend(m.port))
    with Client(port) as c:
        c.ehlo()
        c.cmd('MAIL FROM:<a@b.test>')
        assert c.cmd('RCPT TO:<u0@local.test>')[0] != 250
    m.wait_log('first XCLIENT must have ADDR and PORT')


@pytest.mark.parametrize('address', ['127.0.0.1', '::1'])
def test_stream_with_proxy_protocol(martlet, nginx, address):
    m = martlet(main='hosts_proxy = 127.0.0.1\nlog_selector = +proxy +incoming_port\n',
                acl_rcpt='  warn logwrite = out [$proxy_external_address]:$proxy_external_port\n')
    port = free_port()
    listen = f'[{address}]:{port}' if ':' in address else f'{address}:{port}'
    nginx(f'stream {{ server {{ listen {listen}; proxy_pass 127.0.0.1:{m.port}; proxy_protocol on; }} }}', port, address)
    with Client(port, address=address, source=None if ':' in address else '127.0.0.9') as c:
        own = c.sock.getsockname()[1]
        assert c.mail('a@b.test', 'u0@local.test')[0] == 250
    client = address if ':' in address else '127.0.0.9'
    assert f'(client.test) [{client}]:{own} P=esmtp PRX=127.0.0.1 ' in m.wait_log(r'<= a@b\.test.*')[0]
    assert f'out [{address}]:{port}' in m.log()
