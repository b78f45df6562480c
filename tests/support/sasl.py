"""What authentication needs at the other end: mechanisms of a client, written from their RFCs, and a Dovecot that checks passwords."""
import base64
import hashlib
import hmac
import os
import re
import select
import socket
import ssl
import threading

from support.databases import Database, program
from support.util import free_port, listening, write


def b64(data):
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def unb64(text):
    return base64.b64decode(text)


def plain(user, password, authz=''):
    return b64(f'{authz}\0{user}\0{password}')


def do_plain(c, user, password):
    return c.cmd('AUTH PLAIN ' + plain(user, password))


def do_login(c, user, password):
    for word in ('AUTH LOGIN', b64(user), b64(password)):
        reply = c.cmd(word)
        if reply[0] != 334:
            break
    return reply


def cram(user, password, challenge):
    return b64(user + ' ' + hmac.new(password.encode(), unb64(challenge), 'md5').hexdigest())


def do_cram(c, user, password):
    code, text = c.cmd('AUTH CRAM-MD5')
    return c.cmd(cram(user, password, text)) if code == 334 else (code, text)


def do_scram(c, user, password, hash='sha256', name=None, binding=None, check=True):
    """RFC 5802. binding: (type, data) for -PLUS."""
    gs2 = 'n,,' if binding is None else f'p={binding[0]},,'
    bare = f'n={user},r=rOprNGfwEbeRWgbNEkqO'
    code, text = c.cmd(f'AUTH {name or "SCRAM-SHA-" + hash[3:]} ' + b64(gs2 + bare))
    if code != 334:
        return code, text
    first = unb64(text).decode()
    nonce, salt, rounds = re.fullmatch('r=([^,]*),s=([^,]*),i=([0-9]+)', first).groups()
    salted = hashlib.pbkdf2_hmac(hash, password.encode(), unb64(salt), int(rounds))
    client_key = hmac.digest(salted, b'Client Key', hash)
    without = f'c={b64(gs2.encode() + (binding[1] if binding else b""))},r={nonce}'
    message = ','.join((bare, first, without)).encode()
    signature = hmac.digest(hashlib.new(hash, client_key).digest(), message, hash)
    proof = bytes(x ^ y for x, y in zip(client_key, signature))
    code, text = c.cmd(b64(f'{without},p={b64(proof)}'))
    if code != 334:
        return code, text
    wanted = 'v=' + b64(hmac.digest(hmac.digest(salted, b'Server Key', hash), message, hash))
    if check:
        assert unb64(text).decode() == wanted
    return c.cmd('')


class TlsFront:
    """Takes TLS off connections for a port: Dovecot 2.3 does not do so itself for its authentication service, whatever `ssl` says."""

    def __init__(self, certificate, port):
        self.port, self.to = free_port(), port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self.sockets = []
        for address in ('127.0.0.1', '::1'):
            s = socket.create_server((address, self.port), family=socket.AF_INET6 if ':' in address else socket.AF_INET)
            self.sockets.append(s)
            threading.Thread(target=self.serve, args=(s, context), daemon=True).start()

    def serve(self, listener, context):
        while True:
            try:
                raw = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.carry, args=(raw, context), daemon=True).start()

    def carry(self, raw, context):
        try:
            with context.wrap_socket(raw, server_side=True) as near, socket.create_connection(('127.0.0.1', self.to)) as far:
                while True:
                    ready = [near] if near.pending() else select.select([near, far], [], [])[0]
                    for s in ready:
                        data = s.recv(65536)
                        if not data:
                            return
                        (far if s is near else near).sendall(data)
        except OSError:
            pass

    def stop(self):
        for s in self.sockets:
            s.close()


class Dovecot(Database):
    """The authentication service alone: on a UNIX socket (path), in clear (port) and, with a certificate, behind TLS (tls_port)."""
    program = program('dovecot', '/usr/sbin/dovecot')
    user = 'nobody'

    def __init__(self, directory, users, certificate=None, mechanisms='plain login cram-md5 scram-sha-1 scram-sha-256', denied=(), more=''):
        self.users, self.certificate, self.mechanisms, self.denied, self.more = users, certificate, mechanisms, denied, more
        self.front = None
        super().__init__(directory)

    def as_user(self, *command):
        return list(command) # it gives up what it need not have itself

    def prepare(self):
        d = self.directory
        self.path = f'{d}/auth'
        write(f'{d}/users', ''.join(f'{name}:{{PLAIN}}{password}::::::{extra}\n' for name, (password, extra) in self.users.items()))
        write(f'{d}/denied', ''.join(f'{name}:\n' for name in self.denied))

    def place(self):
        d = self.directory
        root = os.geteuid() == 0
        import grp
        import pwd
        user = 'nobody' if root else pwd.getpwuid(os.geteuid()).pw_name
        group = grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
        write(f'{d}/conf', f'''
base_dir = {d}/run
state_dir = {d}/state
log_path = {d}/log
protocols =
ssl = no
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
auth_mechanisms = {self.mechanisms}
auth_failure_delay = 0
{self.more}
passdb {{
  driver = passwd-file
  deny = yes
  args = {d}/denied
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {d}/users
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home=/nonexistent
}}
service auth {{
  user = {user}
  chroot =
  unix_listener {d}/auth {{
    mode = 0666
  }}
  inet_listener {{
    port = {self.port}
    address = 127.0.0.1 ::1
  }}
}}
service anvil {{
  chroot =
}}
''')

    @property
    def tls_port(self):
        if self.front is None:
            self.front = TlsFront(self.certificate, self.port)
        return self.front.port

    def stop(self, **kw):
        if self.front:
            self.front.stop()
            self.front = None
        super().stop(**kw)

    def command(self):
        return [self.program, '-F', '-c', f'{self.directory}/conf']

    def ready(self):
        if not os.path.exists(self.path) or not listening('127.0.0.1', self.port):
            return False
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(self.path)
                s.settimeout(30)
                return s.recv(1) == b'V'
            except OSError:
                return False
