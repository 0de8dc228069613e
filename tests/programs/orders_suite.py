"""The test suite of orders_service.py, which it starts: exits with 0 when all passed.

orders_suite.py PORT POSTGRES_PORT REDIS_PORT RATES_PORT
"""

import http.client
import json
import os
import subprocess
import sys
import unittest

ports = sys.argv[1:5]
program = os.path.join(os.path.dirname(__file__), "orders_service.py")


def call(method, path, value=None):
    connection = http.client.HTTPConnection("127.0.0.1", int(ports[0]), timeout=20)
    connection.request(method, path, None if value is None else json.dumps(value))
    answer = connection.getresponse()
    return answer.status, json.load(answer)


class Suite(unittest.TestCase):
    def test_1_an_order_is_what_was_in_the_cart(self):
        self.assertEqual(call("GET", "/orders/ann"), (200, []))
        self.assertEqual(call("GET", "/carts/ann"), (200, []))
        for count, item in ((1, "tea"), (2, "it's \"honey\"")):
            self.assertEqual(call("POST", "/carts/ann", {"item": item}), (201, {"items": count}))
        self.assertEqual(call("GET", "/carts/ann"), (200, ["tea", "it's \"honey\""]))
        self.assertEqual(call("POST", "/orders/ann"), (201, {"ordered": 2}))
        status, orders = call("GET", "/orders/ann")
        self.assertEqual((status, [order["item"] for order in orders]), (200, ["tea", "it's \"honey\""]))
        self.assertEqual(call("GET", "/carts/ann"), (200, []))

    def test_2_prices_are_in_the_currency_that_is_asked_for(self):
        self.assertEqual(call("GET", "/prices/1000/EUR"), (200, {"price": 10.87}))
        self.assertEqual(call("GET", "/prices/1000/CHF"), (200, {"price": 9.5}))

    def test_3_an_error_of_the_database_is_told(self):
        status, value = call("GET", "/broken")
        self.assertEqual(status, 500)
        self.assertIn("no_such_column", value["error"])
        # The connection goes on.
        self.assertEqual(call("GET", "/orders/bob"), (200, []))


service = subprocess.Popen([sys.executable, program, *ports], stdout=subprocess.PIPE)
try:
    if service.stdout.readline().strip() != b"ready":
        sys.exit("the service does not start")
    result = unittest.TextTestRunner(verbosity=0).run(unittest.defaultTestLoader.loadTestsFromTestCase(Suite))
finally:
    service.kill()
    service.wait()
sys.exit(0 if result.wasSuccessful() else 1)
