"""Scanners that do what they are told: a server on a port or a UNIX socket whose answers come from a function."""
import os
import socket
import threading


class Stub:
    """answer(connection) is called for each connection, in a thread of its own; what it raises ends the connection."""

    def __init__(self, answer, path=None):
        self.answer, self.path = answer, path
        self.requests = []
        if path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(path)
            os.chmod(path, 0o777)
        else:
            self.sock = socket.socket()
            self.sock.bind(('127.0.0.1', 0))
            self.port = self.sock.getsockname()[1]
        self.sock.listen(20)
        self.ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return self.path or f'127.0.0.1 {self.port}'

    def _accept(self):
        while True:
            try:
                c, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        try:
            c.settimeout(60)
            self.answer(Connection(self, c))
        except (OSError, EOFError):
            pass
        finally:
            c.close()

    def stop(self):
        self.ended.set()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # ends accept()
        except OSError:
            pass
        self.sock.close()
        if self.path:
            os.unlink(self.path)


class Connection:
    def __init__(self, stub, sock):
        self.stub, self.sock, self.pending = stub, sock, b''

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode('latin-1'))

    def until(self, end):
        """Reads up to and with these bytes."""
        while end not in self.pending:
            got = self.sock.recv(65536)
            if not got:
                raise EOFError(self.pending)
            self.pending += got
        i = self.pending.index(end) + len(end)
        data, self.pending = self.pending[:i], self.pending[i:]
        self.stub.requests.append(data)
        return data

    def exactly(self, n):
        while len(self.pending) < n:
            got = self.sock.recv(65536)
            if not got:
                raise EOFError(self.pending)
            self.pending += got
        data, self.pending = self.pending[:n], self.pending[n:]
        return data

    def all(self):
        """Reads to the end that the other side makes."""
        while True:
            got = self.sock.recv(65536)
            if not got:
                data, self.pending = self.pending, b''
                self.stub.requests.append(data)
                return data
            self.pending += got

    def silence(self):
        """Says nothing until the test is over."""
        self.stub.ended.wait(120)


def never(c):
    c.silence()


def close(c):
    pass


def garbage(c):
    c.send(bytes(range(256)) * 40 + b'\n')
    c.sock.shutdown(socket.SHUT_WR)
    c.all()


def flood(c):
    for _ in range(160):
        c.send(b'x' * 65536)
    c.sock.shutdown(socket.SHUT_WR)
    c.all()
