"""TLS handshakes: `openssl s_time` opens connections to a TLS-on-connect port one after another, full handshakes and resumed ones,
TLS 1.2 and 1.3, with a key of ECDSA P-256. What is counted is connections for a second of the server's CPU. `openssl s_server`
stands for what the CPU can do with nothing but the handshake."""
import os
import re
import statistics
import subprocess

from support import procs
from support.certs import Authority
from support.util import free_port, listening, read, wait_for, write

SECONDS = 4
WAYS = [('1.2', 'new'), ('1.2', 'reuse'), ('1.3', 'new')] # s_time does not wait for the tickets of TLS 1.3
WANTED = 5


def connections(port, version, way, seconds):
    done = subprocess.run(['openssl', 's_time', '-connect', f'127.0.0.1:{port}', '-' + way, '-time', str(seconds), '-tls' + version.replace('.', '_')],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.search(r'^(\d+) connections in \d+ real', done.stdout, re.M)
    if not found:
        raise RuntimeError('s_time: ' + done.stdout[-1000:] + done.stderr[-1000:])
    return int(found[1])


def measure(kind, peers, scratch, pair):
    """{(version, way): connections a second of CPU}"""
    group = procs.Group()
    server = kind(scratch, peers, main='smtp_connect_backlog = 500\n')
    conf = getattr(server, 'conf', None) or server.place.path('/etc/exim4/exim4.conf')
    text = re.sub(r'(?m)^tls_\w+ =.*\n', '', read(conf))
    write(conf, 'tls_advertise_hosts = *\ntls_certificate = {}\ntls_privatekey = {}\ntls_resumption_hosts = *\n'.format(*pair)
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
    process = subprocess.Popen(['openssl', 's_server', '-accept', f'127.0.0.1:{port}', '-cert', pair[0], '-key', pair[1], '-quiet'],
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listening('127.0.0.1', port), 's_server')
        result = {}
        for version, way in WAYS:
            cpu = cpu_of(process.pid)
            n = connections(port, version, way, SECONDS)
            result[(version, way)] = n / (cpu_of(process.pid) - cpu)
        return result
    finally:
        process.kill()
        process.wait()


def run(a, scratch, kinds):
    """All rounds; prints the table."""
    results = {}
    pair = Authority(os.path.join(scratch, 'authority')).issue('mx.bench.test')
    os.chmod(scratch, 0o755)
    for number in range(a.rounds):
        for name in ('martlet', 'exim', 's_server'):
            got = bare(pair) if name == 's_server' else measure(kinds[name], a.peers, os.path.join(scratch, f'{name}-tls-{number}'), pair)
            for way, rate in got.items():
                results.setdefault((way, name), []).append(rate)
            print(f'round {number + 1} tls {name:8} ' + ' '.join(f'{v} {w}={r:.0f}' for (v, w), r in got.items()), flush=True)
    print(f'\n{"median of " + str(a.rounds) + " rounds, 1/s of CPU":<34}{"martlet":>12}{"exim":>12}{"s_server":>12}{"martlet/exim":>14}{"wanted":>8}')
    for way in WAYS:
        m, e, s = (statistics.median(results[(way, n)]) for n in ('martlet', 'exim', 's_server'))
        print(f'{"tls " + way[0] + (" full" if way[1] == "new" else " resumed"):<34}{m:>12.0f}{e:>12.0f}{s:>12.0f}{m / e:>14.1f}{">= " + str(WANTED):>8}')
    return {(f'tls {v} {w}', n): [{'per_cpu_second': x} for x in r] for ((v, w), n), r in results.items()}
