"""Debian's Exim as a partner, in a place of its own (place.py)."""
import os

from .place import Place
from .util import free_port, listening, read, wait_for

CONFIGURATION = '''
primary_hostname = {hostname}
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
domainlist local_domains = {domain}
hostlist relay_from = 127.0.0.0/8
log_file_path = /var/log/exim4/%slog
log_selector = +smtp_protocol_error +tls_cipher +received_recipients {log}
acl_smtp_rcpt = acl_rcpt
never_users = root
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
smtp_accept_max = 200
smtp_accept_max_per_connection = 100000
smtp_accept_queue_per_connection = 0
{main}

begin acl
acl_rcpt:
{acl}
  accept domains = +local_domains
  accept hosts = +relay_from
  deny message = relay not permitted

begin routers
{routers}
smart:
  driver = manualroute
  domains = ! +local_domains
  transport = remote_smtp
  route_list = * {smarthost}
  self = send
  no_more
local_user:
  driver = accept
  check_local_user
  transport = local_delivery

begin transports
remote_smtp:
  driver = smtp
  allow_localhost
  {client}
local_delivery:
  driver = appendfile
  directory = $home/Maildir
  maildir_format
  create_directory
  delivery_date_add
  envelope_to_add
  return_path_add

begin retry
* * F,2m,1s; F,1h,10s

begin authenticators
plain_server:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{tester}}}}{{eq{{$auth3}}{{secret}}}}}}}}
  server_set_id = $auth2
plain_client:
  driver = plaintext
  public_name = PLAIN
  client_send = ^tester^secret
'''


class Exim:
    """Accepts mail for users u0, u1, ... of its domain, and relays all else (from loopback) to `smarthost`."""

    def __init__(self, directory, peers, hostname='exim.test', domain='exim.test', smarthost='127.0.0.1::1', tls=None,
                 users=10, main='', acl='', routers='', client='', resolver=None, log=''):
        self.port = free_port()
        self.hostname, self.domain = hostname, domain
        names = ['Debian-exim'] + [(f'u{n}', f'/home/u{n}') for n in range(users)]
        self.place = Place(directory, [os.path.join(peers, 'exim')], names, resolver)
        uid = self.place.uid('Debian-exim')
        for d in ('var/spool/exim4', 'var/log/exim4', 'run/exim4'):
            os.makedirs(self.place.path(d), exist_ok=True)
            os.chown(self.place.path(d), uid, uid)
        if tls:
            main += '\ntls_advertise_hosts = *\ntls_certificate = {}\ntls_privatekey = {}'.format(*tls)
        else:
            main += '\ntls_advertise_hosts ='
        self.place.etc('exim4/exim4.conf', CONFIGURATION.format(
            hostname=hostname, domain=domain, port=self.port, smarthost=smarthost, main=main, acl=acl,
            routers=routers, client=client, log=log))

    def start(self, group=None):
        self.place.start(group)
        try:
            self.place.run(['/usr/sbin/exim4', '-bd', '-q30m', '-oP', '/run/exim4/exim.pid'])
            wait_for(lambda: listening('127.0.0.1', self.port), 'Exim to listen')
        except BaseException:
            self.place.stop()
            raise
        return self

    def exim(self, *args, **kw):
        return self.place.run(['/usr/sbin/exim4', *args], **kw)

    def log(self, kind='main'):
        return read(self.place.path(f'var/log/exim4/{kind}log'))

    def maildir(self, user):
        return self.place.path(f'/home/{user}/Maildir')

    def stop(self):
        self.place.stop()
