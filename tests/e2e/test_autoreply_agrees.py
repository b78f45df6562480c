"""What the autoreply transport does with odd options: recorded from Debian's Exim 4.96."""
import os
import re

import pytest

from support.smtp import Client
from support.util import read

MESSAGE = 'From: Me <a@b.test>\nTo: u0@local.test\nSubject: hi\nMessage-ID: <m1@b.test>\n\nbody line\n'
ROUTER = 'all:\n  driver = accept\n  domains = +local_domains\n  local_parts = u0\n  transport = t'
USUAL = 'to = $sender_address\nsubject = Re: $h_subject:\ntext = Gone'
STAY = 'u1@local.test'  # its Maildir shows the answer


def box(scratch):
    os.makedirs(f'{scratch}/box', exist_ok=True)
    os.chmod(f'{scratch}/box', 0o777)
    return f'{scratch}/box'


def deliver(martlet, scratch, options, times=1, sender=STAY, **gaps):
    options = options.replace('@BOX@', box(scratch))
    m = martlet(daemon=False, routers=ROUTER, transports='t:\n  driver = autoreply\n' + ''.join(f'  {x}\n' for x in options.split('\n')), **gaps)
    for _ in range(times):
        m.run('-odi', '-f', sender, 'u0@local.test', input=MESSAGE, check=False)
    return m


def answers(m):
    d = f'{m.directory}/mail/u1/new'
    return [read(os.path.join(d, f)) for f in sorted(os.listdir(d))] if os.path.isdir(d) else []


FAILS = [
    (USUAL.replace('Gone', '${bad}'), r'\*\* u0@local\.test R=all T=t : Expansion of "\$\{bad\}" failed in t transport: unknown variable in "\$\{bad\}"$'),
    (USUAL + '\nlog = ${bad}', r'\*\* .*: Expansion of "\$\{bad\}" failed in t transport: unknown variable'),
    (USUAL.replace('Re:', r'Re:\001'), r'\*\* .*: Expansion of "Re:\\001 \$h_subject:" in t transport contains non-printing character 1$'),
    (USUAL.replace('Re:', r'Re\nX:'), r'\*\* .*: Expansion of "Re\\nX: \$h_subject:" in t transport contains non-printing character 10$'),
    (USUAL + '\nonce = @BOX@/once\nonce_repeat = foo', r'\*\* .*: Invalid time value "foo" for "once_repeat" in t transport$'),
    (USUAL + '\nmessage_size_limit = 10', r'\*\* .*: message is too big \(transport limit = 10\)$'),
    (USUAL + '\nfile = @BOX@/none', r'== .* defer \(2\): No such file or directory: Failed to open file \S+/none when sending message from t transport: No such'),
    (USUAL + '\nfile = @BOX@/$local_part', r"== .* defer \(13\): Permission denied: Tainted '\S+/u0' \(file for t transport\) not permitted$"),
    (USUAL + '\nonce = @BOX@/none/once', r'== .* defer \(2\): No such file or directory: Failed to open \S+ file \S+/none/once when sending message from t transport: No'),
    (USUAL + '\nonce = @BOX@/$local_part', r"== .* defer \(13\): Permission denied: Tainted '\S+/u0' \(once file for t transport\) not permitted$"),
    (USUAL.replace('$sender_address', 'a@@b'), r'== .* defer \(0\): Failed to send message from t transport \(1\)$'),
    (USUAL + '\nhome_directory = rel', r'== .* defer \(-21\): home directory path "rel" is not absolute for t transport$'),
    (USUAL + '\ncurrent_directory = ${bad}', r'== .* defer \(-27\): current directory "\$\{bad\}" failed to expand for t transport: unknown variable'),
]


@pytest.mark.parametrize('options,text', FAILS, ids=[str(n) for n in range(len(FAILS))])
def test_no_answer(martlet, scratch, options, text):
    m = deliver(martlet, scratch, options, sender='a@b.test', allow_panic='.')
    assert re.search(text, m.log(), re.M), m.log()


def test_lines_of_a_file_that_do_not_expand(martlet, scratch):
    """They stand as they are, the others are expanded."""
    with open(f'{box(scratch)}/f', 'w') as f:
        f.write('for $local_part\n${bad}\n${if eq{1}{2}{x}fail}\nlast\n')
    m = deliver(martlet, scratch, USUAL + '\nfile = @BOX@/f\nfile_expand')
    (text,) = answers(m)
    assert text.endswith('\n\nGone\nfor u0\n${bad}\n${if eq{1}{2}{x}fail}\nlast\n'), text


def test_folded_lists_and_groups(martlet, scratch):
    m = deliver(martlet, scratch, r'to = g: u1@local.test,\n u2@local.test;' + '\ntext = x\nheaders = X-A: 1\\nBcc: u3@local.test')
    (text,) = answers(m)
    assert '\nTo: g: u1@local.test,\n u2@local.test;\n' in text and '\nX-A: 1\n' in text and 'u3@' not in text, text
    assert len(os.listdir(f'{m.directory}/mail/u3/new')) == 1


def test_a_log_that_cannot_be_written(martlet, scratch):
    m = deliver(martlet, scratch, USUAL + '\nlog = @BOX@/none/log')
    assert len(answers(m)) == 1 and 'none/log' not in m.log(), m.log()


def test_once_file_is_a_file(martlet, scratch):
    """Who removes it has all answered again; a sender in capitals is another one."""
    m = deliver(martlet, scratch, USUAL + '\nonce = @BOX@/once', times=2)
    assert len(answers(m)) == 1
    assert os.stat(f'{scratch}/box/once').st_mode & 0o777 == 0o600
    m.run('-odi', '-f', 'U1@local.test', 'u0@local.test', input=MESSAGE)
    assert len(answers(m)) == 2
    os.unlink(f'{scratch}/box/once')
    m.run('-odi', '-f', STAY, 'u0@local.test', input=MESSAGE)
    assert len(answers(m)) == 3


def test_once_file_of_exim(martlet, scratch):
    """A Berkeley DB file is no list of ours: it begins anew."""
    with open(f'{box(scratch)}/once', 'wb') as f:
        f.write(bytes(12) + b'\x61\x15\x06\0' + bytes(8176))
    os.chmod(f'{scratch}/box/once', 0o666)
    m = deliver(martlet, scratch, USUAL + '\nonce = @BOX@/once', times=2)
    assert len(answers(m)) == 1 and os.path.getsize(f'{scratch}/box/once') == 8 + len(STAY) + 1


def test_an_answer_that_waits_is_not_noted(martlet, scratch):
    """The answer fails at first, and is sent when the file is there."""
    m = deliver(martlet, scratch, USUAL + '\nonce = @BOX@/once\nfile = @BOX@/f', times=2, allow_panic='.')
    assert not answers(m)
    with open(f'{scratch}/box/f', 'w') as f:
        f.write('text\n')
    m.run('-odi', '-f', STAY, 'u0@local.test', input=MESSAGE)
    assert len(answers(m)) == 1


def test_what_is_too_long_to_return(martlet, scratch):
    m = martlet(daemon=False, routers=ROUTER, main='bounce_return_size_limit = 100',
                transports='t:\n  driver = autoreply\n  to = $sender_address\n  text = Gone\n  return_message\n')
    m.run('-odi', '-f', STAY, 'u0@local.test', input=MESSAGE + ('z' * 79 + '\n') * 300)
    (text,) = answers(m)
    assert re.search(r'\n------ This is a copy of the message, including all the headers\.\n------ The body of the message is 24\d\d\d characters long; '
                     r'only the first\n------ 8000 or so are included here\.\n\n', text), text


@pytest.mark.root
def test_home_that_is_not_there(martlet, scratch):
    m = martlet(daemon=False, privileged=True, routers=ROUTER,
                transports='t:\n  driver = autoreply\n  user = u5\n  home_directory = /nonexistent\n  to = $sender_address\n  text = x\n')
    m.run('-odi', '-f', 'u1@local.test', 'u0@local.test', input=MESSAGE)
    assert re.search(r'== u0@local\.test R=all T=t defer \(2\): No such file or directory: failed to chdir to /nonexistent$', m.log(), re.M), m.log()


@pytest.mark.root
def test_once_of_a_daemon(martlet, scratch):
    """The file is the user's, made by the agent."""
    m = martlet(privileged=True, arguments=[], routers=ROUTER,
                transports=f't:\n  driver = autoreply\n  user = u5\n  once = {box(scratch)}/once\n  log = {box(scratch)}/log\n'
                           '  to = $sender_address\n  text = x\n')
    for n in (1, 2):
        with Client(m.port) as c:
            for line in ('EHLO c', 'MAIL FROM:<u1@local.test>', 'RCPT TO:<u0@local.test>', 'DATA'):
                c.cmd(line)
            c.send(MESSAGE.replace('\n', '\r\n') + '.\r\n')
            assert c.reply()[0] == 250
        m.wait_log(r'=> u0 <u0@local\.test>', count=n)
    assert os.stat(f'{scratch}/box/once').st_uid == m.place.uid('u5')
    assert 'previously sent to u1@local.test' in read(f'{scratch}/box/log'), m.log()
