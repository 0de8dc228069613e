"""An HTTP server that notes when each request arrived; GET /arrivals tells, in nanoseconds, and begins anew.

One thread sees to all connections: threads of Python take turns of milliseconds.

arrivals.py PORT
"""

import json
import selectors
import socket
import sys
import time

noted = []
held = {}
poll = selectors.DefaultSelector()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
poll.register(listener, selectors.EVENT_READ)


def hear(connection):
    received = connection.recv(65536)
    now = time.monotonic_ns()
    if not received:
        poll.unregister(connection)
        del held[connection]
        return connection.close()
    held[connection] += received
    while b"\r\n\r\n" in held[connection]:
        head, _, held[connection] = held[connection].partition(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        body = b"ok"
        if path == "/arrivals":
            body = json.dumps(noted).encode()
            noted.clear()
        else:
            noted.append([path, now])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


while True:
    for key, _ in poll.select():
        if key.fileobj is listener:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            held[connection] = b""
            poll.register(connection, selectors.EVENT_READ)
        else:
            hear(key.fileobj)
