"""A service of gRPC without TLS, and its test suite: messages are bytes, so that no schema has to be compiled.

grpc_shop.py serve PORT
grpc_shop.py test PORT
"""

import sys
from concurrent import futures

import grpc

role, port = sys.argv[1], sys.argv[2]


def field(number, text):
    return bytes([number << 3 | 2, len(text)]) + text.encode()


def price(request, context):
    if request == field(1, "nothing"):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    context.set_trailing_metadata((("served-by", "shop"),))
    return field(1, f"price of {request[2:].decode()}")


def watch(request, _):
    for number in range(3):
        yield field(1, f"{request[2:].decode()} {number}")


if role == "serve":
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handlers = {
        "Price": grpc.unary_unary_rpc_method_handler(price),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Shop", handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()

with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    ask = channel.unary_unary("/shop.Shop/Price")
    for thing in ("tea", "honey", "tea"):
        answer, call = ask.with_call(field(1, thing), timeout=10)
        assert answer == field(1, f"price of {thing}"), answer
        assert ("served-by", "shop") in [(key, value) for key, value in call.trailing_metadata()]
    try:
        ask(field(1, "nothing"), timeout=10)
        raise AssertionError("it should not be found")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        assert error.details() == "no such thing"
    answers = list(channel.unary_stream("/shop.Shop/Watch")(field(1, "tea"), timeout=10))
    assert answers == [field(1, f"tea {number}") for number in range(3)], answers
    if len(sys.argv) > 3:
        try:
            ask(field(1, sys.argv[3]), timeout=10)
            raise AssertionError("it should not be answered")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            print(error.details())
print("passed")
