"""Uses every call of toxiproxy-python against the agent, and looks at what its toxics do."""

import socket
import threading
import time

from toxiproxy import Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists


def serve():
    server = socket.create_server(("127.0.0.1", 0))

    def echo(connection):
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    def accept():
        while True:
            connection, _ = server.accept()
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return "127.0.0.1:%d" % server.getsockname()[1]


def call(listen):
    """How long the answer to one line takes; None when there is none."""
    host, port = listen.rsplit(":", 1)
    start = time.monotonic()
    try:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(b"omg\n")
            if connection.recv(100) != b"omg\n":
                return None
    except OSError:
        return None
    return time.monotonic() - start


def raises(error, work):
    try:
        work()
    except error:
        return True
    return False


server = Toxiproxy()
upstream = serve()
assert server.running() and b"version" in server.version()
assert server.proxies() == {}

proxy = server.create(name="one", upstream=upstream)
assert proxy.enabled and proxy.listen.startswith("127.0.0.1:")
assert raises(ProxyExists, lambda: server.create(name="one", upstream=upstream))
assert server.get_proxy("one").listen == proxy.listen and server.get_proxy("two") is None
assert call(proxy.listen) < 0.15

with proxy.down():
    assert call(proxy.listen) is None
assert call(proxy.listen) < 0.15

proxy.add_toxic(type="latency", attributes={"latency": 300})
assert call(proxy.listen) >= 0.3
assert proxy.get_toxic("latency_downstream").attributes["latency"] == 300
proxy.add_toxic(type="latency", stream="upstream", name="there", toxicity=1.0, attributes={"latency": 200})
assert call(proxy.listen) >= 0.5 and sorted(proxy.toxics()) == ["latency_downstream", "there"]
assert raises(ProxyExists, lambda: proxy.add_toxic(type="latency", name="there"))
assert raises(InvalidToxic, lambda: proxy.add_toxic(type="tardiness"))
assert raises(InvalidToxic, lambda: proxy.add_toxic(type="latency", name="x", stream="sideways"))
assert proxy.destroy_toxic("there")
assert raises(NotFound, lambda: proxy.destroy_toxic("there"))
assert 0.3 <= call(proxy.listen) < 0.5

assert server.reset() and proxy.toxics() == {}
for kind, attributes, answers in [
    ("bandwidth", {"rate": 1000}, True),
    ("slow_close", {"delay": 10}, True),
    ("timeout", {"timeout": 100}, False),
    ("reset_peer", {"timeout": 0}, False),
    ("slicer", {"average_size": 2, "size_variation": 1, "delay": 10}, None),
    ("limit_data", {"bytes": 2}, False),
    ("noop", {}, True),
]:
    proxy.add_toxic(type=kind, attributes=attributes)
    took = call(proxy.listen)
    assert answers is None or (took is not None) == answers, (kind, took)
    assert proxy.destroy_toxic(kind + "_downstream")
assert call(proxy.listen) < 0.15

made = server.populate([
    {"name": "two", "upstream": upstream, "listen": "127.0.0.1:0"},
    {"name": "three", "upstream": upstream, "listen": "127.0.0.1:0"},
])
assert [each.name for each in made] == ["two", "three"] and len(server.proxies()) == 3
server.destroy_all()
assert server.proxies() == {} and call(proxy.listen) is None
print("all passed")
