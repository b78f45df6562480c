"""What the lmtp transport logs of bad answers: recorded from Debian's Exim 4.96."""
import os
import re
import socket
import threading

import pytest

MESSAGE = 'Subject: hi\n\nbody line\n'
ROUTER = 'all:\n  driver = accept\n  domains = +local_domains\n  local_parts = u0\n  transport = t'


class Server(threading.Thread):
    """LMTP on a socket; `answers`: command (or banner, dot) to what is said then. None: nothing, until the client goes."""

    def __init__(self, path, answers):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        os.chmod(path, 0o777)
        self.answers = answers
        self.commands = []
        self.start()

    def run(self):
        conn, _ = self.listener.accept()
        conn.settimeout(60)
        with conn, conn.makefile('rb') as f:
            def say(what, usual):
                answer = self.answers.get(what, usual)
                if answer is not None:
                    conn.sendall(answer.encode() + b'\r\n')
            say('banner', '220 ready')
            for line in f:
                word = line.split()[0].decode()
                self.commands.append(word)
                if word == 'DATA':
                    say(word, '354 go')
                    if self.answers.get(word, '354').startswith('354'):
                        while f.readline() not in (b'.\r\n', b''):
                            pass
                        say('dot', '250 kept')
                else:
                    say(word, '250 ok')


def deliver(martlet, scratch, options, allow_panic='.'):
    m = martlet(daemon=False, routers=ROUTER, allow_panic=allow_panic, transports=f't:\n  driver = lmtp\n{options}')
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input=MESSAGE, check=False)
    return m


BAD = [  # who says what, the log's word for it
    ('banner', 'hello', r'== u0@local\.test R=all T=t defer \(-19\): Malformed LMTP response after initial connection: hello$'),
    ('MAIL', 'hello', r'== .* defer \(-19\): Malformed LMTP response after MAIL FROM:<a@b\.test>: hello$'),
    ('dot', 'hello', r'== .* defer \(-1\): Malformed LMTP response after end of data: hello$'),
    ('LHLO', '451 4.2.0 not now', r'== .* defer \(-1\): LMTP error after LHLO \S+: 451 4\.2\.0 not now$'),
    ('MAIL', '451 4.2.0 not now', r'== .* defer \(-45\): LMTP error after MAIL FROM:<a@b\.test>: 451 4\.2\.0 not now$'),
    ('RCPT', '451 4.2.0 not now', r'== .* defer \(-44\): LMTP error after RCPT TO:<u0@local\.test>: 451 4\.2\.0 not now$'),
    ('DATA', '451 4.2.0 not now', r'== .* defer \(-46\): LMTP error after DATA: 451 4\.2\.0 not now$'),
    ('dot', '451 4.2.0 not now', r'== .* defer \(-46\): LMTP error after end of data: 451 4\.2\.0 not now$'),
    ('dot', '354 what', r'== .* defer \(-1\): LMTP error after end of data: 354 what$'),
    ('dot', None, r'== .* defer \(-1\): LMTP timeout after end of data \([1-9]\d* bytes written\)$'),
    ('MAIL', '550-no\r\n550 no', r'\*\* u0@local\.test R=all T=t : LMTP error after MAIL FROM:<a@b\.test>: 550-no\\n550 no$'),
]


@pytest.mark.parametrize('who,answer,text', BAD, ids=[str(n) for n in range(len(BAD))])
def test_bad_answer(martlet, scratch, who, answer, text):
    s = Server(f'{scratch}/lmtp', {who: answer})
    limit = '5s' if answer is None else '1m'
    m = deliver(martlet, scratch, f'  socket = {scratch}/lmtp\n  timeout = {limit}\n')
    assert re.search(text, m.log(), re.M), m.log()
    s.join(60)
    polite = answer != 'hello' or who == 'dot'
    assert ('QUIT' in s.commands) == polite, s.commands


OPTIONS = [
    ('socket = {s}/none', r'== .* defer \(-1\): Failed to connect to socket \S+/none for t transport: No such file or directory$'),
    ('socket = ${{bad}}', r'== .* defer \(-1\): Expansion of "\$\{bad\}" \(socket setting for t transport\) failed: unknown variable'),
    ('command = /bin/cat $local_part', r"\*\* .* T=t : Tainted arg 1 for t transport command: 'u0'$"),
    ('command = $local_part', r"\*\* .* T=t : Tainted arg 0 for t transport command: 'u0'$"),
]


@pytest.mark.parametrize('options,text', OPTIONS, ids=[str(n) for n in range(len(OPTIONS))])
def test_bad_options(martlet, scratch, options, text):
    m = deliver(martlet, scratch, '  ' + options.format(s=scratch) + '\n', allow_panic=None)
    assert re.search(text, m.log(), re.M), m.log()


@pytest.mark.root
def test_directory_that_is_not_there(martlet, scratch):
    m = martlet(daemon=False, privileged=True, routers=ROUTER,
                transports='t:\n  driver = lmtp\n  user = u5\n  socket = /nonexistent/x\n  current_directory = /nonexistent\n')
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input=MESSAGE)
    assert re.search(r'== u0@local\.test R=all T=t defer \(2\): No such file or directory: failed to chdir to /nonexistent$', m.log(), re.M), m.log()
