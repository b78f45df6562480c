"""A port, or a UNIX socket, in front of another, that counts who comes."""
import os
import select
import socket
import threading


class Door:
    def __init__(self, directory, to, path=None):
        self.to, self.path, self.count = to, path, 0
        self.sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.sock.bind(path or ('127.0.0.1', 0))
        if path:
            os.chmod(path, 0o777)
        self.port = None if path else self.sock.getsockname()[1]
        self.sock.listen(50)
        threading.Thread(target=self.serve, daemon=True).start()

    def start(self):
        pass

    def stop(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def serve(self):
        while True:
            try:
                s = self.sock.accept()[0]
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self.carry, args=(s,), daemon=True).start()

    def carry(self, near):
        try:
            with near, socket.socket(socket.AF_UNIX if isinstance(self.to, str) else socket.AF_INET) as far:
                far.connect(self.to)
                while True:
                    for s in select.select([near, far], [], [])[0]:
                        data = s.recv(65536)
                        if not data:
                            return
                        (far if s is near else near).sendall(data)
        except OSError:
            pass
