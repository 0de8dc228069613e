"""A small shop's catalog: prices from Redis, the exchange rate from elsewhere, by name. Logs what it said and heard.

catalog.py PORT REDIS_PORT RATES_HOST:PORT LOG
"""

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, redis_port, rates, log_path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
log = open(log_path, "a", buffering=1, encoding="utf-8")
lock = threading.Lock()


def exchange(connection, to, request, is_whole, opened=0):
    """One call: sends all, reads until the answer is whole, and logs it."""
    start = time.perf_counter_ns()
    connection.sendall(request)
    answer, first = b"", None
    while not is_whole(answer):
        part = connection.recv(65536)
        first = first or time.perf_counter_ns()
        if not part:
            raise ConnectionError(f"{to} closed")
        answer += part
    line = {"to": to, "out": len(request), "in": len(answer), "ns": first - start, "opened": opened}
    with lock:
        log.write(json.dumps(line) + "\n")
    return answer


class Redis:
    def __init__(self):
        self.connection = socket.create_connection(("127.0.0.1", redis_port))
        self.opened = 1

    def get(self, key):
        request = b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key)
        opened, self.opened = self.opened, 0
        return exchange(self.connection, "redis", request, lambda answer: answer.endswith(b"\r\n"), opened)


def rate():
    host, rates_port = rates.rsplit(":", 1)
    # Asked for anew each time, as a program without a cache does.
    address = socket.getaddrinfo(host, int(rates_port), socket.AF_INET, socket.SOCK_STREAM)[0][4]
    with socket.create_connection(address) as connection:
        request = f"GET /rate HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        return exchange(connection, "rates", request, lambda answer: answer.endswith(b"<end>"), 1)


class Catalog(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.redis = Redis()

    def finish(self):
        super().finish()
        self.redis.connection.close()

    def do_GET(self):
        self.redis.get(b"price:" + self.path.encode())
        rate()
        body = b"x" * 2000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Catalog).serve_forever()
