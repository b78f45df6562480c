"""What is logged when routers' directories are wrong, and when iplookup gets nothing useful: recorded from Debian's Exim 4.96."""
import os
import re
import socket
import threading

import pytest

MESSAGE = 'Subject: hi\n\nbody line\n'

DIRECTORIES = [
    ('transport_home_directory = ${bad}', r'\(-27\): ', 'home directory "${bad}" failed to expand for t transport: unknown variable in "${bad}"'),
    ('transport_home_directory = ${if eq{1}{2}{x}fail}', r'\(-27\): ',
     'home directory "${if eq{1}{2}{x}fail}" failed to expand for t transport: "if" failed and "fail" requested'),
    ('transport_home_directory = rel', r'\(-21\): ', 'home directory path "rel" is not absolute for t transport'),
    ('transport_current_directory = ${if eq{1}{2}{x}}', r'\(-21\): ', 'current directory path "" is not absolute for t transport'),
    ('transport_current_directory = ${bad}', r'\(-27\): ', 'current directory "${bad}" failed to expand for t transport: unknown variable in "${bad}"'),
]


@pytest.mark.parametrize('option,number,text', DIRECTORIES, ids=[str(n) for n in range(len(DIRECTORIES))])
def test_directory_of_a_router(martlet, option, number, text):
    m = martlet(daemon=False, allow_panic='directory', routers=f'all:\n  driver = accept\n  domains = +local_domains\n  transport = t\n  {option}\n',
                transports='t:\n  driver = appendfile\n  file = /dev/null\n')
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input=MESSAGE, check=False)
    assert re.search(r'== u0@local\.test R=all T=t defer ' + number + re.escape(text) + '$', m.log(), re.M), m.log()
    assert len(re.findall(r'^\S+ \S+ \S+ ' + re.escape(text) + '$', m.log(), re.M)) == 1, m.log()
    assert m.log('panic').count(text) == 1, m.log('panic')


class Helper(threading.Thread):
    """Answers questions over UDP."""

    def __init__(self, answer):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(('127.0.0.1', 0))
        self.port = self.socket.getsockname()[1]
        self.answer = answer
        self.start()

    def run(self):
        while True:
            _, peer = self.socket.recvfrom(4096)
            self.socket.sendto(self.answer, peer)


QUESTIONS = [
    ('query = ${bad}', r'defer \(-1\): ask router: failed to expand \$\{bad\}: unknown variable in "\$\{bad\}"$'),
    ('reroute = ${bad}', r'defer \(-1\): ask router: failed to expand \$\{bad\}: unknown variable in "\$\{bad\}"$'),
    ('query = who', r'defer \(-1\): ask router: reroute string who is not of the form user@domain$'),
]


def ask(martlet, port, options):
    m = martlet(daemon=False, allow_panic='ask router',
                routers=f'ask:\n  driver = iplookup\n  domains = +local_domains\n  hosts = 127.0.0.1\n  port = {port}\n' +
                ''.join(f'  {x}\n' for x in options.split('\n')))
    m.run('-odi', '-f', 'a@b.test', 'u0@local.test', input=MESSAGE, check=False)
    return m


@pytest.mark.parametrize('options,text', QUESTIONS, ids=[str(n) for n in range(len(QUESTIONS))])
def test_iplookup_gets_nothing_useful(martlet, options, text):
    m = ask(martlet, Helper(b'who goes\n').port, options + '\ntimeout = 30s' if 'reroute' not in options else options + '\nquery = x\ntimeout = 30s')
    assert re.search('== u0@local.test R=ask ' + text, m.log(), re.M), m.log()


def test_iplookup_without_a_server(martlet):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))  # not listening: refused
        m = ask(martlet, s.getsockname()[1], 'protocol = tcp')
        assert re.search(r'== u0@local\.test R=ask defer \(-1\): ask router: failed to communicate with any host$', m.log(), re.M), m.log()


def test_commands_that_are_asked_have_a_umask_of_their_own(martlet, scratch):
    """queryprogram's and ${run}'s."""
    with open(f'{scratch}/command', 'w') as f:
        f.write('#!/bin/sh\necho "FAIL umask `umask`"\n')
    os.chmod(f'{scratch}/command', 0o755)
    m = martlet(daemon=False, routers=f'all:\n  driver = queryprogram\n  command_user = nobody\n  command = {scratch}/command\n')
    assert 'undeliverable: umask 0077' in m.run('-bt', 'u0@local.test', check=False).stdout
    assert m.expand('${run{/bin/sh -c umask}}').strip() == '0077'
