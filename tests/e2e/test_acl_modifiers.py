"""Modifiers of ACLs that reach out of the session."""
import socket

from support.smtp import Client


def test_udpsend(martlet):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(('127.0.0.1', 0))
        s.settimeout(60)
        port = s.getsockname()[1]
        m = martlet(acl_rcpt=f'  warn udpsend = <; 127.0.0.1 ; {port} ; $local_part from $sender_host_address\n')
        with Client(m.port) as c:
            assert c.mail('a@b.test', 'u0@local.test')[0] == 250
        assert s.recv(1000) == b' u0 from 127.0.0.1'  # blanks, too, as in Exim


def test_udpsend_without_a_port_defers(martlet):
    m = martlet(acl_rcpt='  require udpsend = <; 127.0.0.1\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test')[0] == 451
    m.wait_log(r': missing destination port in "udpsend" modifier$', 'reject')
