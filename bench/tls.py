"""TLS handshakes: `openssl s_time` opens connections to a TLS-on-connect port one after another, full handshakes and resumed ones,
TLS 1.2 and 1.3, with a key of ECDSA P-256. What is counted is connections for a second of the server's CPU. Two lines say what the CPU
can do: `openssl s_server` (without a trust store, which it
would search each time) does nothing but the handshake, for the same clients; `openssl speed` counts the operations themselves, of
which a full handshake needs a signature, a key pair of X25519 and an agreement. `isolated` is Martlet with key_isolation."""
import os
import re
import statistics
import subprocess

from support import procs
from support.certs import Authority
from support.util import free_port, listening, read, wait_for, write

SECONDS = 4
WAYS = [('1.2', 'new'), ('1.2', 'reuse'), ('1.3', 'new')] # s_time does not wait for the tickets of TLS 1.3
WANTED, WANTED_OF_CPU = 5, 0.85


def connections(port, version, way, seconds):
    done = subprocess.run(['openssl', 's_time', '-connect', f'127.0.0.1:{port}', '-' + way, '-time', str(seconds), '-tls' + version.replace('.', '_')],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.search(r'^(\d+) connections in \d+ real', done.stdout, re.M)
    if not found:
        raise RuntimeError('s_time: ' + done.stdout[-1000:] + done.stderr[-1000:])
    return int(found[1])


def measure(name, kind, peers, scratch, pair, options=''):
    """{(version, way): connections a second of CPU}"""
    group = procs.Group()
    if name == 'postfix':
        server = kind(scratch, peers, tls=pair, main='smtpd_tls_wrappermode = yes\n')
    else:
        server = kind(scratch, peers, main='smtp_connect_backlog = 500\n')
        conf = getattr(server, 'conf', None) or server.place.path('/etc/exim4/exim4.conf')
        text = re.sub(r'(?m)^tls_\w+ =.*\n', '', read(conf))
        write(conf, options + 'tls_advertise_hosts = *\ntls_certificate = {}\ntls_privatekey = {}\ntls_resumption_hosts = *\n'.format(*pair)
              + f'tls_on_connect_ports = {server.port}\n' + text)
    server.start(group)
    try:
        result = {}
        for version, way in WAYS:
            connections(server.port, version, way, 1)
            cpu = group.cpu(server.place)
            n = connections(server.port, version, way, SECONDS)
            result[(version, way)] = n / (group.cpu(server.place) - cpu)
        return result
    finally:
        server.stop()
        group.remove()


def cpu_of(pid):
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def bare(pair):
    port = free_port()
    process = subprocess.Popen(['openssl', 's_server', '-accept', f'127.0.0.1:{port}', '-cert', pair[0], '-key', pair[1], '-quiet', '-no-CAfile', '-no-CApath', '-no-CAstore'],
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listening('127.0.0.1', port), 's_server')
        result = {}
        for version, way in WAYS:
            connections(port, version, way, 1)
            cpu = cpu_of(process.pid)
            n = connections(port, version, way, SECONDS)
            result[(version, way)] = n / (cpu_of(process.pid) - cpu)
        return result
    finally:
        process.kill()
        process.wait()


def operations():
    """Full handshakes' worth of cryptography a second of CPU."""
    def speed(name):
        done = subprocess.run(['openssl', 'speed', '-mr', '-seconds', '1', name], capture_output=True, text=True)
        return float(re.search(r'^\+F[45]:\d+:\d+:([0-9.]+)', done.stdout, re.M)[1]) # signatures, or agreements
    return 1 / (1 / speed('ecdsap256') + 2 / speed('ecdhx25519'))


def run(a, scratch, kinds):
    """All rounds; prints the table."""
    results, names = {}, [n for n in ('martlet', 'exim', 'postfix') if n in a.servers]
    pair = Authority(os.path.join(scratch, 'authority')).issue('mx.bench.test')
    os.chmod(scratch, 0o755)
    for number in range(a.rounds):
        for name in names + ['isolated'] * ('martlet' in names) + ['s_server', 'speed']:
            if name == 's_server':
                got = bare(pair)
            elif name == 'speed':
                got = {way: operations() for way in WAYS if way[1] == 'new'}
            elif name == 'isolated':
                got = measure(name, kinds['martlet'], a.peers, os.path.join(scratch, f'{name}-tls-{number}'), pair, 'key_isolation = true\n')
            else:
                got = measure(name, kinds[name], a.peers, os.path.join(scratch, f'{name}-tls-{number}'), pair)
            for way, rate in got.items():
                results.setdefault((way, name), []).append(rate)
            print(f'round {number + 1} tls {name:8} ' + ' '.join(f'{v} {w}={r:.0f}' for (v, w), r in got.items()), flush=True)
    print(f'\nhandshakes, 1/s of CPU, median of {a.rounds} rounds; wanted: >= {WANTED} of exim, >= {WANTED_OF_CPU} of s_server')
    for way in WAYS:
        rates = {n: statistics.median(results[(way, n)]) for n in names + ['isolated', 's_server', 'speed'] if (way, n) in results}
        line = 'tls ' + way[0] + (' full:   ' if way[1] == 'new' else ' resumed:') + ''.join(f' {n} {r:.0f}' for n, r in rates.items())
        if 'martlet' in rates:
            line += ';' + ''.join(f' martlet/{n} {rates["martlet"] / r:.2f}' for n, r in rates.items() if n != 'martlet')
        print(line)
    return {(f'tls {v} {w}', n): [{'per_cpu_second': x} for x in r] for ((v, w), n), r in results.items()}
