"""A small service: answers GET /N, and first asks those that its plan names for /N-1, until N is 0.

usage: NAME.py PORT PLAN, where PLAN is JSON:
  calls        [{"port": P, "times": 1, "retries": 0, "spread": [P, ..]}]
  redis        port of a Redis that is asked once for each call
  sleep        seconds that its own work takes
  fail         true: answers 500
  trace        true: passes traceparent on
"""

import http.client
import http.server
import itertools
import json
import socket
import sys
import threading
import time

PLAN = json.loads(sys.argv[2])
TURN = itertools.count()
LOCAL = threading.local()


def pool():
    if not hasattr(LOCAL, "pool"):
        LOCAL.pool = {}
    return LOCAL.pool


def ask(port, path, headers):
    """Asks over a connection that is kept; gives the status, 599 without an answer."""
    for _ in range(2):
        connection = pool().get(port)
        if connection is None:
            connection = pool()[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            pool().pop(port, None)
    return 599


def ask_redis(port):
    connection = pool().get("redis")
    if connection is None:
        connection = pool()["redis"] = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"*2\r\n$3\r\nGET\r\n$4\r\nitem\r\n")
    if not connection.recv(4096):
        raise OSError("redis is gone")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def do_GET(self):
        left = int(self.path.strip("/") or 0)
        headers = {}
        if PLAN.get("trace") and "traceparent" in self.headers:
            headers["traceparent"] = self.headers["traceparent"]
        time.sleep(PLAN.get("sleep", 0))
        if left > 0:
            for call in PLAN.get("calls", []):
                ports = call.get("spread") or [call["port"]]
                for _ in range(call.get("times", 1)):
                    port = ports[next(TURN) % len(ports)]
                    for _ in range(1 + call.get("retries", 0)):
                        if ask(port, "/%d" % (left - 1), headers) < 500:
                            break
            if "redis" in PLAN:
                ask_redis(PLAN["redis"])
        self.send_response(500 if PLAN.get("fail") else 200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


Handler.disable_nagle_algorithm = True
Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
