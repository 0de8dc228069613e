#!/usr/bin/env python3
"""Records a real conversation for the golden tests of the protocol decoders.

    scripts/record_sample.py LISTEN_PORT SERVER_PORT OUT_PREFIX

Relays 127.0.0.1:LISTEN_PORT to 127.0.0.1:SERVER_PORT and writes one text file a connection, OUT_PREFIX-1.txt,
OUT_PREFIX-2.txt and so on, until SIGINT or SIGTERM. A line is `C <microseconds> <hex>` for what the client sent, `S ...`
for the server, in the order of arrival; `#` starts a comment; the last line is `E <microseconds>`. Microseconds count
from the connection's start. Prints "ready" when it listens.
"""

import selectors
import signal
import socket
import sys
import threading
import time


def relay(client, server_port, path):
    server = socket.create_connection(("127.0.0.1", server_port))
    start = time.monotonic_ns()
    choice = selectors.DefaultSelector()
    choice.register(client, selectors.EVENT_READ, ("C", server))
    choice.register(server, selectors.EVENT_READ, ("S", client))
    with open(path, "w") as out, client, server:
        def note(side, data=b""):
            micros = (time.monotonic_ns() - start) // 1000
            out.write(f"{side} {micros} {data.hex()}".rstrip() + "\n")
            out.flush()

        while choice.get_map():
            for key, _ in choice.select():
                side, other = key.data
                try:
                    data = key.fileobj.recv(65536)
                    if data:
                        note(side, data)
                        other.sendall(data)
                    else:
                        choice.unregister(key.fileobj)
                        other.shutdown(socket.SHUT_WR)
                except OSError:
                    for end in (client, server):
                        if end in choice.get_map():
                            choice.unregister(end)
        note("E")


def main():
    listen_port, server_port, prefix = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: sys.exit(0))
    with socket.create_server(("127.0.0.1", listen_port)) as listener:
        print("ready", flush=True)
        for number in range(1, 1_000_000):
            client, _ = listener.accept()
            path = f"{prefix}-{number}.txt"
            threading.Thread(target=relay, args=(client, server_port, path), daemon=True).start()


if __name__ == "__main__":
    main()
