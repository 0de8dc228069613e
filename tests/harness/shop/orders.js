// Answers every request; for each asks stock, over a connection that is kept, and Redis.
// usage: orders.js PORT STOCK_PORT REDIS_PORT
const http = require("node:http");
const net = require("node:net");

const [port, stock, redis] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const waiting = [];
let cache;

function askCache(then) {
  if (!cache) {
    cache = net.connect(redis, "127.0.0.1").setNoDelay(true);
    cache.on("data", () => waiting.shift()?.());
  }
  waiting.push(then);
  cache.write("*2\r\n$3\r\nGET\r\n$5\r\norder\r\n");
}

http
  .createServer((_, answer) => {
    const asked = http.get({ host: "127.0.0.1", port: stock, path: "/0", agent }, (found) => {
      found.resume();
      found.on("end", () => {
        askCache(() => answer.end("ok\n"));
      });
    });
    asked.on("error", () => answer.writeHead(502).end());
  })
  .listen(port, "127.0.0.1");
