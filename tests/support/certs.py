"""A certificate authority of the tests' own, and certificates for the servers, made with the openssl program."""
import os
import subprocess


def _openssl(*args, **kw):
    subprocess.run(['openssl', *args], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.PIPE, **kw)


class Authority:
    def __init__(self, directory):
        self.directory = str(directory)
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o755)
        self.certificate = os.path.join(self.directory, 'ca.pem')
        self.key = os.path.join(self.directory, 'ca.key')
        _openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30',
                 '-subj', '/O=Tests/CN=Test authority', '-keyout', self.key, '-out', self.certificate)

    def issue(self, name, *more, days=30):
        """(certificate, key) of a server; the key is readable for all, since servers run as different users."""
        stem = os.path.join(self.directory, name.replace('*', '_'))
        if os.path.exists(stem + '.pem'):
            return stem + '.pem', stem + '.key'
        with open(stem + '.ext', 'w') as f:
            f.write('subjectAltName=' + ','.join('DNS:' + n for n in (name, *more)) + '\n')
        _openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj',
                 '/CN=' + name, '-keyout', stem + '.key', '-out', stem + '.csr')
        _openssl('x509', '-req', '-in', stem + '.csr', '-CA', self.certificate, '-CAkey', self.key, '-CAcreateserial',
                 '-days', str(days), '-extfile', stem + '.ext', '-out', stem + '.pem')
        os.chmod(stem + '.key', 0o644)
        return stem + '.pem', stem + '.key'
