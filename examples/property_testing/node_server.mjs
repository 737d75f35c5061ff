// Socket.IO's server for Node.js, with the control protocol of trio_socketio.testing.WireMachine (see wire.py).
//
//   node node_server.mjs [REDIS_URL]
//
// With a Redis, all servers there are one cluster. It takes any free port, says where it is, and ends with its input, so
// that it does not outlive who started it. Its packages are those of the directory in which it is started.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.cwd(), "package.json"));
const { Server } = require("socket.io");
const [redis] = process.argv.slice(2);

async function redisAdapter(url) {
  const { createClient } = require("redis");
  const { createAdapter } = require("@socket.io/redis-adapter");
  const [pub, sub] = [createClient({ url }), createClient({ url })];
  await Promise.all([pub.connect(), sub.connect()]);
  return createAdapter(pub, sub);
}

const http = createServer();
const io = new Server(http, redis ? { adapter: await redisAdapter(redis) } : {});
let number = null;
let heard = [];

io.on("connection", (socket) => socket.on("echo", (ack) => ack()));

io.on("message", (value, ack) => {
  heard.push(value);
  ack?.(number);
});

function meant({ rooms, except, local }) {
  const operator = io.to(rooms).except(except);
  return local ? operator.local : operator;
}

const collected = (promise) => promise.then((values) => [values, true], (error) => [error.responses ?? [], false]);
const the = (id) => io.sockets.sockets.get(id);

io.of("/control").on("connection", (control) => {
  control.on("start", (value, ack) => {
    number = value;
    heard = [];
    ack();
  });

  control.on("join", (id, rooms) => the(id).join(rooms));
  control.on("leave", (id, room) => the(id).leave(room));
  control.on("disconnect_socket", (id) => the(id).disconnect());
  control.on("emit_from", (id, rooms, event, args) => the(id).to(rooms).emit(event, ...args));

  control.on("emit", (target, event, args) => meant(target).emit(event, ...args));
  control.on("ask", async (target, event, args, ack) =>
    ack(await collected(meant(target).timeout(1000).emitWithAck(event, ...args))),
  );
  control.on("sockets_join", (target, rooms) => meant(target).socketsJoin(rooms));
  control.on("sockets_leave", (target, rooms) => meant(target).socketsLeave(rooms));
  control.on("disconnect_sockets", (target) => meant(target).disconnectSockets());
  control.on("fetch_sockets", async (target, ack) => {
    const [sockets, complete] = await collected(meant(target).fetchSockets());
    ack([sockets.map(({ id, rooms }) => [id, [...rooms]]), complete]);
  });

  control.on("server_side_emit", (event, args) => io.serverSideEmit(event, ...args));
  control.on("server_side_ask", async (event, args, ack) =>
    ack(await collected(io.serverSideEmitWithAck(event, ...args))),
  );

  control.on("snapshot", (ack) => {
    const rooms = [...io.of("/").adapter.rooms].map(([room, ids]) => [room, [...ids]]);
    ack([Object.fromEntries(rooms), heard.splice(0)]);
  });
  // Its answers come through the same connections to Redis as everything else, and so behind it.
  control.on("settle", async (ack) => {
    await io.fetchSockets();
    ack();
  });
});

http.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${http.address().port}`));
process.stdin.resume().on("end", () => process.exit());
