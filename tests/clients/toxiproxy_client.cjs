// Uses every call of toxiproxy-node-client against the agent, and looks at what its toxics do.

const assert = require("node:assert");
const net = require("node:net");
const { Toxiproxy } = require("toxiproxy-node-client");

function serve() {
  const server = net.createServer((socket) => {
    socket.on("error", () => {});
    socket.pipe(socket);
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

// How many milliseconds the answer to one line takes; null when there is none.
function call(listen) {
  const [host, port] = [listen.slice(0, listen.lastIndexOf(":")), listen.slice(listen.lastIndexOf(":") + 1)];
  const start = process.hrtime.bigint();
  return new Promise((resolve) => {
    const socket = net.connect(Number(port), host);
    const end = (answer) => {
      socket.destroy();
      resolve(answer);
    };
    socket.on("connect", () => socket.write("omg\n"));
    socket.on("data", () => end(Number(process.hrtime.bigint() - start) / 1e6));
    socket.on("error", () => end(null));
    socket.on("close", () => end(null));
  });
}

async function main() {
  const server = await serve();
  const upstream = `127.0.0.1:${server.address().port}`;
  const toxiproxy = new Toxiproxy("http://127.0.0.1:8474");
  assert.match(JSON.parse(await toxiproxy.getVersion()).version, /^2\./);
  assert.deepStrictEqual(await toxiproxy.getAll(), {});

  const proxy = await toxiproxy.createProxy({ name: "one", listen: "127.0.0.1:0", upstream });
  assert.ok(proxy.enabled && !proxy.listen.endsWith(":0"));
  await assert.rejects(toxiproxy.createProxy({ name: "one", listen: "127.0.0.1:0", upstream }), /409/);
  await assert.rejects(toxiproxy.get("two"), /404/);
  assert.deepStrictEqual((await toxiproxy.get("one")).toJson(), proxy.toJson());
  assert.ok((await call(proxy.listen)) < 150);

  const down = await proxy.update({ enabled: false, listen: proxy.listen, upstream: proxy.upstream });
  assert.strictEqual(down.enabled, false);
  assert.strictEqual(await call(proxy.listen), null);
  const up = await proxy.update({ enabled: true, listen: proxy.listen, upstream: proxy.upstream });
  assert.ok(up.enabled && (await call(proxy.listen)) < 150);

  const latency = { attributes: { jitter: 0, latency: 300 }, name: "late", stream: "downstream", toxicity: 1, type: "latency" };
  const toxic = await proxy.addToxic(latency);
  assert.deepStrictEqual(toxic.toJson(), latency);
  assert.ok((await call(proxy.listen)) >= 300);
  assert.deepStrictEqual((await proxy.getToxic("late")).toJson(), latency);
  const changed = await toxic.update({ attributes: { latency: 500, jitter: 0 }, toxicity: 1 });
  assert.strictEqual(changed.attributes.latency, 500);
  assert.ok((await call(proxy.listen)) >= 500);
  await assert.rejects(proxy.addToxic(latency), /409/);
  await toxic.remove();
  await assert.rejects(proxy.getToxic("late"), /404/);
  assert.ok((await call(proxy.listen)) < 150);

  await proxy.addToxic({ attributes: { timeout: 100 }, name: "t", stream: "upstream", toxicity: 1, type: "timeout" });
  assert.strictEqual(await call(proxy.listen), null);
  await toxiproxy.reset();
  assert.ok((await call(proxy.listen)) < 150);

  const made = await toxiproxy.populate([
    { name: "one", listen: proxy.listen, upstream },
    { name: "two", listen: "127.0.0.1:0", upstream },
  ]);
  assert.deepStrictEqual(Object.keys(made), ["one", "two"]);
  for (const each of Object.values(await toxiproxy.getAll())) {
    await each.remove();
  }
  assert.deepStrictEqual(await toxiproxy.getAll(), {});
  assert.strictEqual(await call(proxy.listen), null);
  console.log("all passed");
  server.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
