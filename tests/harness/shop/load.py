"""Asks each of some ports in turn for a path, one call at a time, over connections that are kept.

usage: load.py PAUSE PATH PORT..., PAUSE in seconds between two calls
"""

import http.client
import sys
import time

pause, path, ports = float(sys.argv[1]), sys.argv[2], [int(port) for port in sys.argv[3:]]
open_ones = {}
number = 0
while True:
    number += 1
    port = ports[number % len(ports)]
    headers = {"traceparent": "00-%032x-%016x-01" % (number, number)}
    try:
        if port not in open_ones:
            open_ones[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        open_ones[port].request("GET", path, headers=headers)
        open_ones[port].getresponse().read()
    except (OSError, http.client.HTTPException):
        open_ones.pop(port).close()
    time.sleep(pause)
