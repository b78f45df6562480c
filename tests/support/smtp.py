"""Two ends of SMTP that do what they are told, right or wrong: a client over a plain socket, and a scripted server."""
import socket
import socketserver
import ssl
import threading


class Closed(Exception):
    pass


class Client:
    """A line-by-line client: cmd() sends a line as it is and gives (code, text of the reply)."""

    def __init__(self, port, address='127.0.0.1', timeout=60, banner=True, source=None):
        self.sock = socket.create_connection((address, port), timeout, source and (source, 0))
        self.sock.settimeout(timeout)
        self.pending = b''
        self.greeting = self.reply() if banner else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode('latin-1'))

    def line(self):
        while b'\n' not in self.pending:
            try:
                got = self.sock.recv(65536)
            except ConnectionError as e:
                raise Closed(str(e)) from e
            if not got:
                raise Closed('closed by the server' + (f' after {self.pending!r}' if self.pending else ''))
            self.pending += got
        line, self.pending = self.pending.split(b'\n', 1)
        return line.rstrip(b'\r').decode('latin-1')

    def reply(self):
        lines = []
        while True:
            line = self.line()
            lines.append(line[4:])
            if line[3:4] != '-':
                return int(line[:3]), '\n'.join(lines)

    def cmd(self, line):
        self.send(line if isinstance(line, bytes) else line + '\r\n')
        return self.reply()

    def expect(self, code, line):
        got = self.cmd(line)
        assert got[0] == code, f'{line!r} was answered {got}, expected {code}'
        return got

    def ehlo(self, name='client.test'):
        _, text = self.expect(250, 'EHLO ' + name)
        self.keywords = {k.split()[0].upper(): k.split()[1:] for k in text.split('\n')[1:] if k.split()}
        return self.keywords

    def starttls(self, context=None, name='mx.martlet.test'):
        self.expect(220, 'STARTTLS')
        if context is None:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock, server_hostname=name)
        self.pending = b''

    def mail(self, sender, *recipients, data=None, hello=True):
        """A whole transaction; gives the reply to the final dot (or to the first command that was refused)."""
        steps = (['EHLO client.test'] if hello else []) + [f'MAIL FROM:<{sender}>'] + [f'RCPT TO:<{r}>' for r in recipients]
        for step in steps:
            got = self.cmd(step)
            if got[0] != 250:
                return got
        self.expect(354, 'DATA')
        return self.body(data if data is not None else 'Subject: test\r\n\r\ntest\r\n')

    def body(self, data):
        raw = data if isinstance(data, bytes) else data.encode('latin-1')
        self.send(raw.replace(b'\r\n.', b'\r\n..') + b'.\r\n')
        return self.reply()

    def at_end(self):
        """True when the server has closed and sent nothing more."""
        try:
            return self.pending == b'' and self.sock.recv(1) == b''
        except ConnectionError:
            return True

    def close(self):
        self.sock.close()

    def reset(self):
        """Ends the connection with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
        self.sock.close()


class Server:
    """Accepts everything, unless `script` says otherwise.

    script: {verb: reply or list of replies or function(line, session) -> reply}, with verbs CONNECT, EHLO, HELO, MAIL,
    RCPT, DATA, DOT, RSET, QUIT, STARTTLS, AUTH. A reply is text such as '450 later' ('\\n' between lines), 'DROP' (close), or None
    (the ordinary one). Lists are used up, their last entry stays. `messages` collects dicts with mail, rcpt, data.
    """
    ordinary = {'CONNECT': '220 sink.test ESMTP', 'HELO': '250 sink.test', 'MAIL': '250 sender ok', 'RCPT': '250 ok',
                'DATA': '354 go on', 'DOT': '250 kept', 'RSET': '250 reset', 'QUIT': '221 bye', 'NOOP': '250 ok',
                'STARTTLS': '220 go on', 'AUTH': '235 welcome'}

    def __init__(self, script=None, keywords=('PIPELINING', '8BITMIME', 'SIZE 50000000'), tls=None, address='127.0.0.1', port=0):
        """tls: (certificate, key): offers STARTTLS."""
        self.script = dict(script or {})
        self.keywords = list(keywords) + (['STARTTLS'] if tls else [])
        self.messages, self.sessions, self.commands = [], 0, []
        self.lock = threading.Lock()
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*tls)
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                self.request.settimeout(60)
                try:
                    Session(outer, self.request).run()
                except (OSError, Closed, ValueError):
                    pass

        class Tcp(socketserver.ThreadingTCPServer):
            daemon_threads, block_on_close, allow_reuse_address, request_queue_size = True, False, True, 100

        self.tcp = Tcp((address, port), Handler)
        self.address, self.port = self.tcp.server_address
        threading.Thread(target=self.tcp.serve_forever, args=(0.05,), daemon=True).start()

    def choose(self, verb, line, session):
        with self.lock:
            got = self.script.get(verb)
            if isinstance(got, list):
                got = got.pop(0) if len(got) > 1 else got[0]
        if callable(got):
            got = got(line, session)
        if got is None:
            got = self.ordinary.get(verb, '500 what?')
            if verb == 'EHLO':
                got = '\n'.join('250 ' + k for k in ['sink.test'] + (
                    [k for k in self.keywords if k != 'STARTTLS'] if session.encrypted else self.keywords))
        return got

    def stop(self):
        self.tcp.shutdown()
        self.tcp.server_close()


class Session:
    def __init__(self, server, sock):
        self.server, self.sock, self.file, self.encrypted = server, sock, sock.makefile('rb'), False
        self.mail, self.rcpt, self.hello = None, [], None

    def say(self, reply):
        if reply == 'DROP':
            raise Closed('as scripted')
        lines = reply.split('\n')
        out = ''
        for n, line in enumerate(lines):
            out += (line if n == len(lines) - 1 else line[:3] + '-' + line[4:]) + '\r\n'
        self.sock.sendall(out.encode('latin-1'))
        return int(reply[:3]) < 400

    def run(self):
        with self.server.lock:
            self.server.sessions += 1
        if not self.say(self.server.choose('CONNECT', '', self)):
            return
        while True:
            raw = self.file.readline(100000)
            if not raw:
                return
            line = raw.decode('latin-1').rstrip('\r\n')
            verb = line.split(' ', 1)[0].split(':')[0].upper()
            self.server.commands.append(line)
            if verb == 'BDAT':
                self.bdat(line)
                continue
            if verb == 'DATA' and not self.rcpt:
                self.say('503 no recipient was accepted')
                continue
            ok = self.say(self.server.choose(verb, line, self))
            if verb == 'QUIT':
                return
            if ok:
                self.done(verb, line)

    def done(self, verb, line):
        if verb in ('EHLO', 'HELO'):
            self.hello = line[5:]
        if verb in ('EHLO', 'HELO', 'RSET'):
            self.mail, self.rcpt, self.chunks = None, [], b''
        elif verb == 'MAIL':
            self.mail, self.rcpt, self.chunks = line[10:], [], b''
        elif verb == 'RCPT':
            self.rcpt.append(line[8:])
        elif verb == 'DATA':
            data = b''
            while True:
                text = self.file.readline()
                if not text:
                    raise Closed('in the message')
                if text == b'.\r\n':
                    break
                data += text[1:] if text.startswith(b'.') else text
            self.accept(data)
        elif verb == 'STARTTLS' and self.server.context:
            self.sock = self.server.context.wrap_socket(self.sock, server_side=True)
            self.file, self.encrypted = self.sock.makefile('rb'), True

    def bdat(self, line):
        words = line.split()
        self.chunks += self.file.read(int(words[1]))
        if len(words) > 2:
            self.accept(self.chunks)
        else:
            self.say('250 chunk')

    def accept(self, data):
        reply = self.server.choose('DOT', data, self)
        if reply != 'DROP' and reply.startswith('2'):
            with self.server.lock:
                self.server.messages.append(
                    {'mail': self.mail, 'rcpt': list(self.rcpt), 'data': data, 'hello': self.hello, 'tls': self.encrypted})
        self.say(reply)
        self.mail, self.rcpt, self.chunks = None, [], b''
