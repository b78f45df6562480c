"""Proxies of the smtp transport where Exim's habits matter: those that want no password, and none at all."""
import re
import socket
import threading

MESSAGE = 'Subject: hi\n\nbody line\n'


class Proxy(threading.Thread):
    """A SOCKS5 proxy that asks for nothing, and is the mail server itself."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.port = self.listener.getsockname()[1]
        self.said = []
        self.start()

    def run(self):
        conn, _ = self.listener.accept()
        conn.settimeout(60)
        with conn, conn.makefile('rb') as f:
            say = conn.sendall
            self.said.append(f.read(1 + 1 + 1))
            say(b'\5\0')
            self.said.append(f.read(10))
            say(b'\5\0\0\1\x7f\0\0\1\0\1')
            say(b'220 ready\r\n')
            data = False
            for line in f:
                if data:
                    data = line != b'.\r\n'
                    if not data:
                        say(b'250 kept\r\n')
                elif line.startswith(b'DATA'):
                    data = True
                    say(b'354 go\r\n')
                elif line.startswith(b'QUIT'):
                    say(b'221 bye\r\n')
                    return
                else:
                    say(b'250 ok\r\n')


def test_a_proxy_that_wants_no_password(martlet):
    """It was offered one; names of options are in capitals, too."""
    p = Proxy()
    m = martlet(daemon=False, relay_to='*', main='log_selector = +proxy', smarthost='127.0.0.1::1',
                client=f'socks_proxy = 127.0.0.1 PORT={p.port} auth=name name=fred pass=secret')
    m.run('-odi', '-f', 'a@b.test', 'x@relay.test', input=MESSAGE)
    assert re.search(r'=> x@relay\.test .*PRX=\[127\.0\.0\.1\]', m.log()), m.log()
    p.join(60)
    assert p.said == [b'\5\1\2', b'\5\1\0\1\x7f\0\0\1\0\1'], p.said


def test_an_expansion_to_nothing_is_no_proxy(martlet, smtp_server):
    """As in newer Exim; 4.96 gives up."""
    s = smtp_server()
    m = martlet(daemon=False, relay_to='*', smarthost=f'127.0.0.1::{s.port}', client='socks_proxy = ${if eq{1}{2}{127.0.0.1}}')
    m.run('-odi', '-f', 'a@b.test', 'x@relay.test', input=MESSAGE)
    assert re.search(r'=> x@relay\.test ', m.log()) and len(s.messages) == 1, m.log()
