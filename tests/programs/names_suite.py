"""Reaches an HTTP API that only a name leads to: as libc resolves it, and as a name server tells it that is asked by hand.

names_suite.py NAME PORT RESOLVER
"""

import json
import random
import socket
import struct
import sys
import urllib.request

name, port, resolver = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def question():
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    number = random.randrange(1 << 16)
    return number, struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def check(number, answer):
    assert struct.unpack("!H", answer[:2])[0] == number, "the answer to another question"
    assert socket.inet_aton("127.0.0.1") in answer, answer


found = {address[4][0] for address in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)}
assert found == {"127.0.0.1"}, found
with urllib.request.urlopen(f"http://{name}:{port}/rates?to=EUR", timeout=10) as answer:
    assert json.load(answer)["rate"] == 1.087

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
    asker.settimeout(10)
    number, message = question()
    asker.sendto(message, (resolver, 53))
    answer, source = asker.recvfrom(4096)
    assert source == (resolver, 53), source
    check(number, answer)

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
    asker.settimeout(10)
    asker.connect((resolver, 53))
    assert asker.getpeername() == (resolver, 53)
    number, message = question()
    asker.send(message)
    check(number, asker.recv(4096))

try:
    socket.getaddrinfo("nowhere.example", port)
except socket.gaierror:
    pass
else:
    raise AssertionError("there is such a name")
