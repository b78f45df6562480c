"""A client of TLS that sends its flights when it is told to."""
import socket
import ssl


class Held:
    """A client of TLS whose second flight is sent when finish() says so."""

    def __init__(self, port, version=ssl.TLSVersion.TLSv1_3, session=None):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        self.context, self.incoming, self.outgoing = context, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname='mx.martlet.test', session=session)
        self.socket = socket.create_connection(('127.0.0.1', port), 30)
        self.step()
        self.finish()
        while not self.step():
            self.finish()  # TLS 1.2: else the server has nothing to answer
            self.take()

    def step(self):
        try:
            self.tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False

    def take(self):
        data = self.socket.recv(65536)
        assert data, 'the server has closed the connection'
        self.incoming.write(data)

    def finish(self):
        self.socket.sendall(self.outgoing.read())

    def read(self):
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.take()

    def say(self, line):
        self.tls.write(line + b'\r\n')
        self.finish()
        return self.read()

    def hears_nothing(self, seconds=1):
        self.socket.settimeout(seconds)
        try:
            self.read()
            return False
        except TimeoutError:
            self.socket.settimeout(30)
            return True
