"""Log lines of named queues, and what -R and -S force, as Debian's Exim 4.96 was seen to have them."""
import re

import pytest

from support.util import free_port

pytestmark = pytest.mark.plain


@pytest.fixture
def queue(martlet):
    return lambda: martlet(daemon=False, retry='* * F,5d,1d', smarthost='127.0.0.1', client=f'port = {free_port()}')


def test_lines_name_the_queue(queue):
    m = queue()
    m.run('-odq', '-f', 'u1@local.test', 'u0@local.test', 'a@relay.test', input='Subject: x\n\nx\n')
    ident, = m.queue()
    m.run('-MG', 'other', ident)
    m.run('-qGother')
    m.wait_log(r"Start 'other' queue run: pid=\d+$")
    m.wait_log(r'=> u0 <u0@local\.test> Q=other R=local_users T=\w+$')
    m.wait_log(r'== a@relay\.test Q=other R=\w+ T=\w+ defer \(')
    m.wait_log(r"End 'other' queue run: pid=\d+$")


@pytest.mark.parametrize('select', [('-R', 'relay'), ('-S', 'u1@')])
def test_the_first_message_selected_is_tried_before_its_time(queue, select):
    m = queue()
    m.run('-odi', '-f', 'u1@local.test', 'a@relay.test', input='Subject: x\n\nx\n')
    def tries():
        return len(re.findall(r'== a@relay\.test R=\w+ T=\w+ defer \(111\): Connection refused', m.log()))
    assert tries() == 1, m.logs()
    m.run('-q')
    assert tries() == 1, m.logs()
    m.run(*select)
    assert tries() == 2, m.logs()


def test_the_arrival_has_the_sender_before_rewriting(martlet):
    m = martlet(daemon=False, main='log_selector = +received_sender +address_rewrite\n',
                retry='* * F,5d,1d\n\nbegin rewrite\n*@old.test $1@local.test E')
    m.run('-odi', '-f', 'u1@old.test', 'u0@old.test', input='Subject: x\n\nx\n')
    m.wait_log(r'<= u1@local\.test .* from <u1@old\.test>$')
    text = m.log()
    assert 0 < text.index('from env-to rewritten') < text.index('from env-from rewritten') < text.index('<= u1@local.test')
