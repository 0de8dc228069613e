"""A small web service: orders in PostgreSQL, carts in Redis, rates asked of an HTTP API.

orders_service.py PORT POSTGRES_PORT REDIS_PORT RATES_PORT
"""

import json
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

port, postgres_port, redis_port, rates_port = map(int, sys.argv[1:5])
database = psycopg2.connect(host="127.0.0.1", port=postgres_port, user="postgres", dbname="postgres")
lock = threading.Lock()
carts = redis.Redis(host="127.0.0.1", port=redis_port)


def statement(text, *values):
    with lock, database, database.cursor() as cursor:
        cursor.execute(text, values)
        return cursor.fetchall() if cursor.description else cursor.rowcount


def rate(currency):
    request = urllib.request.Request(
        f"http://127.0.0.1:{rates_port}/rates?to={currency}", headers={"Accept": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["rate"]


class Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def guarded(self, work):
        try:
            self.answer(*work())
        except Exception as error:  # whatever a dependency does is an answer of this service
            self.answer(500, {"error": f"{type(error).__name__}: {error}"})

    def do_GET(self):
        self.guarded(self.get)

    def do_POST(self):
        self.guarded(self.post)

    def get(self):
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "orders":
            rows = statement("SELECT id, item, cents FROM orders WHERE customer = %s ORDER BY id", name)
            return 200, [dict(zip(("id", "item", "cents"), row)) for row in rows]
        if kind == "carts":
            return 200, [item.decode() for item in carts.lrange(f"cart:{name}", 0, -1)]
        if kind == "prices":
            cents, currency = name.split("/")
            return 200, {"price": round(int(cents) * rate(currency) / 100, 2)}
        if kind == "broken":
            return 200, statement("SELECT no_such_column FROM orders")
        return 404, {}

    def post(self):
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "carts":
            pipeline = carts.pipeline()
            pipeline.rpush(f"cart:{name}", self.body()["item"])
            pipeline.expire(f"cart:{name}", 600)
            return 201, {"items": pipeline.execute()[0]}
        items = carts.lrange(f"cart:{name}", 0, -1)
        for item in items:
            statement("INSERT INTO orders (customer, item, cents) VALUES (%s, %s, 250)", name, item.decode())
        carts.delete(f"cart:{name}")
        return 201, {"ordered": len(items)}

    def log_message(self, *_):
        pass


print("ready", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Orders).serve_forever()
