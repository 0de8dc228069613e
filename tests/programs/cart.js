// A small shop's cart: rows from PostgreSQL, each tenth time the tax from elsewhere, by name. Logs what it said and heard.
//
// cart.js PORT POSTGRES_PORT TAX_HOST:PORT LOG
'use strict';
const fs = require('fs');
const http = require('http');
const net = require('net');

const [port, postgresPort, tax, logPath] = process.argv.slice(2);
const log = fs.openSync(logPath, 'a');
const now = () => process.hrtime.bigint();
const note = (to, out, got, start, first, opened) =>
  fs.writeSync(log, JSON.stringify({ to, out, in: got, ns: Number(first - start), opened }) + '\n');

function startup() {
  const body = Buffer.from('user\0postgres\0database\0postgres\0\0');
  const head = Buffer.alloc(8);
  head.writeInt32BE(body.length + 8, 0);
  head.writeInt32BE(196608, 4); // version 3.0
  return Buffer.concat([head, body]);
}

function query(sql) {
  const head = Buffer.alloc(5);
  head.write('Q');
  head.writeInt32BE(Buffer.byteLength(sql) + 5, 1);
  return Buffer.concat([head, Buffer.from(sql + '\0')]);
}

// Whether the last message is ReadyForQuery.
function isReady(bytes) {
  let at = 0;
  let last = 0;
  while (at + 5 <= bytes.length) {
    last = bytes[at];
    at += 1 + bytes.readInt32BE(at + 1);
  }
  return at === bytes.length && last === 0x5a;
}

class Session {
  constructor(done) {
    this.socket = net.connect(Number(postgresPort), '127.0.0.1', () => this.ask(startup(), 1, () => done(this)));
    this.socket.setNoDelay(true);
    this.socket.on('data', (part) => this.heard(part));
  }

  ask(request, opened, then) {
    Object.assign(this, { request, opened, then, answer: Buffer.alloc(0), first: null, start: now() });
    this.socket.write(request);
  }

  heard(part) {
    this.first = this.first || now();
    this.answer = Buffer.concat([this.answer, part]);
    if (isReady(this.answer)) {
      note('postgres', this.request.length, this.answer.length, this.start, this.first, this.opened);
      this.then();
    }
  }
}

const idle = [];
function rows(then) {
  const ask = (session) =>
    session.ask(query('SELECT pg_sleep(0.03), 42 AS item'), 0, () => {
      idle.push(session);
      then();
    });
  if (idle.length > 0) ask(idle.pop());
  else new Session(ask);
}

function taxes(then) {
  const [host, taxPort] = tax.split(':');
  const request = http.get({ host, port: taxPort, path: '/tax', agent: false, family: 4 }, (response) => {
    const first = now();
    const socket = response.socket;
    response.resume();
    response.on('end', () => {
      note('tax', socket.bytesWritten, socket.bytesRead, request.started, first, 1);
      then();
    });
  });
  request.on('finish', () => (request.started = now()));
}

let asked = 0;
http
  .createServer((_, response) =>
    rows(() => {
      const answer = () => response.end('y'.repeat(3000));
      if (++asked % 10 === 0) taxes(answer);
      else answer();
    }),
  )
  .listen(Number(port), '127.0.0.1');
