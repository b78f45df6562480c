"""A next hop that goes wrong at random, at each point of the dialogue, and knows what it has taken."""
import random
import socket
import socketserver
import struct
import threading
import time

POINTS = ('CONNECT', 'EHLO', 'MAIL', 'RCPT', 'DATA', 'TEXT', 'DOT', 'QUIT')
FAULTS = ('later', 'never', 'stall', 'reset', 'close', 'half', 'garbage')


class End(Exception):
    pass


class Hop:
    """`taken`: (message, recipient) -> times at which the message was there whole and 250 was said on a sound connection;
    `unsaid`: those where it was there and the answer did not arrive, so that it may rightly come once more."""

    def __init__(self, seed, faults=0.12, stall=4):
        self.random, self.faults, self.stall = random.Random(seed), faults, stall
        self.lock = threading.Lock()
        self.taken, self.unsaid, self.refused, self.happened = {}, {}, set(), {}
        self.stop = threading.Event()
        hop = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                self.request.settimeout(60)
                try:
                    Dialogue(hop, self.request).run()
                except (OSError, End, ValueError):
                    pass

        class Tcp(socketserver.ThreadingTCPServer):
            daemon_threads, block_on_close, allow_reuse_address, request_queue_size = True, False, True, 200
        self.tcp = Tcp(('127.0.0.1', 0), Handler)
        self.port = self.tcp.server_address[1]
        threading.Thread(target=self.tcp.serve_forever, args=(0.05,), daemon=True).start()

    def choose(self, point):
        with self.lock:
            if self.random.random() >= self.faults:
                return None
            fault = self.random.choice(FAULTS)
            if fault == 'never' and self.random.random() < 0.7: # bounces are dear
                fault = 'later'
            self.happened[point, fault] = self.happened.get((point, fault), 0) + 1
            return fault

    def heal(self):
        with self.lock:
            self.faults = 0
        self.stop.set()

    def end(self):
        self.tcp.shutdown()
        self.tcp.server_close()


class Dialogue:
    def __init__(self, hop, sock):
        self.hop, self.sock, self.file, self.half = hop, sock, sock.makefile('rb'), False
        self.sender, self.rcpt = False, []

    def fault(self, point):
        """True: the answer is given. Raises End when there is no more to say."""
        what = self.hop.choose(point)
        if what is None:
            return True
        if what in ('later', 'never'):
            code = 4 if what == 'later' else 5
            self.say(f'{code}{self.hop.random.choice(("21", "50", "51", "52")) if code == 4 else "50"} as it happens')
            if point == 'CONNECT':
                raise End
            return False
        if what == 'stall':
            self.hop.stop.wait(self.hop.stall)
            raise End
        if what == 'reset':
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.sock.close()
            raise End
        if what == 'half': # says nothing more, but takes what comes
            self.sock.shutdown(socket.SHUT_WR)
            while self.file.read1(65536):
                pass
            raise End
        if what == 'garbage':
            self.say(self.hop.random.choice(('hello', '99 x', '250', '250-a\r\n350 b', '', '\0\0\0', 'x' * 9000)))
            raise End
        raise End # close

    def say(self, text):
        self.sock.sendall(text.encode('latin-1') + b'\r\n')

    def answer(self, point, text):
        if self.fault(point):
            self.say(text)
            return True
        return False

    def run(self):
        if not self.answer('CONNECT', '220 hop.test ESMTP'):
            return
        while True:
            line = self.file.readline(4000).decode('latin-1').strip()
            if not line:
                return
            verb = line.split(' ')[0].split(':')[0].upper()
            if verb == 'EHLO':
                self.answer('EHLO', self.hello())
            elif verb == 'HELO':
                self.answer('EHLO', '250 hop.test')
            elif verb == 'MAIL':
                self.rcpt = []
                self.sender = self.answer('MAIL', '250 ok')
            elif verb == 'RCPT':
                who = line[line.index('<') + 1:line.index('>')]
                if not self.sender:
                    self.say('503 MAIL first')
                elif self.answer('RCPT', '250 ok'):
                    self.rcpt.append(who)
            elif verb == 'DATA':
                if not self.rcpt:
                    self.say('503 nobody')
                elif self.answer('DATA', '354 go on'):
                    self.text(self.lines())
            elif verb == 'BDAT':
                data = self.file.read(int(line.split()[1]))
                if not self.rcpt:
                    self.say('503 nobody')
                else:
                    self.text(data)
            elif verb == 'RSET':
                self.rcpt = []
                self.say('250 ok')
            elif verb == 'QUIT':
                self.answer('QUIT', '221 bye')
                return
            else:
                self.say('500 what?')

    def hello(self):
        words = ['hop.test'] + [w for w in ('PIPELINING', 'CHUNKING', 'SIZE 10000000', '8BITMIME') if self.hop.random.random() < 0.6]
        return '\r\n'.join(('250-' if n < len(words) - 1 else '250 ') + w for n, w in enumerate(words))

    def lines(self):
        data = b''
        if self.hop.choose('TEXT') in ('reset', 'close', 'stall'):
            self.file.read1(500)
            raise End
        while True:
            line = self.file.readline()
            if not line:
                raise End
            if line == b'.\r\n':
                return data
            data += line

    def text(self, data):
        ident = data[data.index(b'X-Fault: ') + 9:].split(b'\r\n')[0].decode()
        if not data.endswith(b'the end\r\n'):
            raise ValueError('the message is not whole')
        try:
            if not self.fault('DOT'):
                return
        except (End, OSError):
            with self.hop.lock:
                for who in self.rcpt:
                    self.hop.unsaid.setdefault((ident, who), []).append(time.time())
            raise
        self.say('250 taken')
        with self.hop.lock:
            for who in self.rcpt:
                self.hop.taken.setdefault((ident, who), []).append(time.time())
