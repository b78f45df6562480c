"""Dovecot as a mail store: LMTP on a socket and a port, IMAP on another, mailboxes of one system user in a directory."""
import grp
import imaplib
import os
import pwd

from .sasl import Dovecot
from .util import free_port, listening, write


class MailStore(Dovecot):
    def __init__(self, directory, mail, user, users=('u0', 'u1'), **kw):
        """mail: a mail_location of Dovecot's; user: whose files the mailboxes are."""
        self.mail, self.owner = mail, user
        super().__init__(directory, {u: ('secret', '') for u in users}, mechanisms='plain', **kw)

    def prepare(self):
        self.imap_port, self.lmtp_port = free_port(), free_port()
        super().prepare()
        account = pwd.getpwnam(self.owner)
        home = os.path.join(self.directory, 'home')
        os.makedirs(home, exist_ok=True)
        os.chown(home, account.pw_uid, account.pw_gid)

    def place(self):
        d = self.directory
        account = pwd.getpwnam(self.owner)
        group = grp.getgrgid(account.pw_gid).gr_name
        self.lmtp = f'{d}/lmtp'
        write(f'{d}/conf', f'''
base_dir = {d}/run
state_dir = {d}/state
log_path = {d}/log
protocols = imap lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
default_login_user = {self.owner}
default_internal_user = {self.owner}
default_internal_group = {group}
first_valid_uid = 1
first_valid_gid = 1
auth_mechanisms = plain
auth_username_format = %n
mail_location = {self.mail}
lmtp_save_to_detail_mailbox = no
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%n {d}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {d}/users
  override_fields = uid={account.pw_uid} gid={account.pw_gid} home={d}/home/%n
}}
service auth {{
  user = {self.owner}
  chroot =
  unix_listener {d}/auth {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {self.imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  unix_listener {self.lmtp} {{
    mode = 0666
  }}
  inet_listener lmtp {{
    port = {self.lmtp_port}
  }}
}}
service stats {{
  chroot =
}}
''')

    def ready(self):
        return os.path.exists(self.lmtp) and listening('127.0.0.1', self.imap_port) and listening('127.0.0.1', self.lmtp_port)

    def fetch(self, user='u0'):
        """All messages of the INBOX, as IMAP gives them."""
        with imaplib.IMAP4('127.0.0.1', self.imap_port) as c:
            c.login(user, 'secret')
            c.select('INBOX')
            _, (ids,) = c.search(None, 'ALL')
            return [c.fetch(i, '(BODY[])')[1][0][1] for i in ids.split()]
