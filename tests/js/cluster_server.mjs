// A Node.js server in a cluster, for the tests in Python (see ../interop/node_server.py).
//
// It understands all that driver.mjs does, whose clients are used for its own clients as well, and the commands below,
// which have a server do everything that goes through its adapter. Whom they mean is `{namespace, rooms, except, local,
// timeout}`; all of it may be missing.
//
//   node cluster_server.mjs classic-redis|classic-ioredis|sharded|streams-redis|streams-ioredis URL PREFIX OPTIONS
//
// OPTIONS is JSON: `{adapter: {...}, server: {...}}`.

import { createServer } from "node:http";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { Redis } from "ioredis";
import { createClient } from "redis";
import { Server } from "socket.io";
import { clients, commands, fromJson, obey, toJson } from "./driver.mjs";

const [kind, url, prefix, options] = process.argv.slice(2);
const { adapter: adapterOptions = {}, server: serverOptions = {} } = JSON.parse(options);
const troubles = [];
const seen = [];

async function connectToRedis() {
  if (kind.endsWith("-ioredis")) return new Redis(url);
  const client = createClient({ url });
  await client.connect();
  return client;
}

function watched(client) {
  client.on("error", (error) => troubles.push(error.message));
  return client;
}

async function makeAdapter() {
  const [pub, sub] = [watched(await connectToRedis()), watched(await connectToRedis())];
  switch (kind) {
    case "sharded":
      return createShardedAdapter(pub, sub, { channelPrefix: prefix, ...adapterOptions });
    case "streams-redis":
    case "streams-ioredis":
      return createStreamsAdapter(pub, {
        streamName: prefix,
        channelPrefix: prefix,
        sessionKeyPrefix: `${prefix}:session:`,
        ...adapterOptions,
      });
    default:
      return createAdapter(pub, sub, { key: prefix, ...adapterOptions });
  }
}

process.on("unhandledRejection", (error) => troubles.push(String(error)));

const http = createServer();
const io = new Server(http, { adapter: await makeAdapter(), ...serverOptions });
io.on("error", (error) => troubles.push(error.message));
io.on("connection", (socket) => {
  if (!socket.recovered) socket.data = { node: true };
});
await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));

function meant({ namespace = "/", rooms = [], except = [], local = false, timeout = null }) {
  let operator = io.of(namespace);
  if (rooms.length) operator = operator.to(rooms);
  if (except.length) operator = operator.except(except);
  if (local) operator = operator.local;
  return timeout === null ? operator : operator.timeout(timeout);
}

const describe = ({ id, handshake, rooms, data }) => ({ id, handshake, rooms: [...rooms], data });

// What an answer that is late has brought all the same.
async function collected(promise) {
  try {
    return { responses: await promise, error: null };
  } catch (error) {
    return { responses: error.responses ?? null, error: error.message };
  }
}

async function theOne(target) {
  const found = await meant(target).fetchSockets();
  if (found.length !== 1) throw new Error(`${found.length} sockets are meant`);
  return found[0];
}

Object.assign(commands, {
  port: () => http.address().port,
  troubles: () => troubles,
  seen: () => seen.splice(0),

  // Servers of Node.js are members of a namespace once they have made it.
  of: ({ namespace }) => void io.of(namespace),

  "io.emit": ({ target, event, args }) => void meant(target).emit(event, ...fromJson(args)),
  "io.emitWithAck": ({ target, event, args }) => collected(meant(target).emitWithAck(event, ...fromJson(args))),
  "io.socketsJoin": ({ target, rooms }) => meant(target).socketsJoin(rooms),
  "io.socketsLeave": ({ target, rooms }) => meant(target).socketsLeave(rooms),
  "io.disconnectSockets": ({ target, close }) => meant(target).disconnectSockets(close),
  "io.fetchSockets": async ({ target }) => (await meant(target).fetchSockets()).map(describe),
  "io.serverSideEmit": ({ event, args }) => void io.serverSideEmit(event, ...fromJson(args)),
  "io.serverSideEmitWithAck": ({ event, args }) => collected(io.serverSideEmitWithAck(event, ...fromJson(args))),
  "io.allRooms": async () => [...(await io.of("/").adapter.allRooms())],
  "io.serverCount": () => io.of("/").adapter.serverCount(),
  // Those for acknowledgements are kept until their timeout, whatever comes.
  "io.pending": () => io.of("/").adapter.requests.size,
  "io.rooms": ({ client }) => [...io.of("/").sockets.get(clients.get(client).socket.id).rooms],

  "remote.emit": async ({ target, event, args }) => void (await theOne(target)).emit(event, ...fromJson(args)),
  "remote.emitWithAck": async ({ target, event, args, timeout }) =>
    (await theOne(target)).timeout(timeout).emitWithAck(event, ...fromJson(args)),
  "remote.join": async ({ target, rooms }) => void (await theOne(target)).join(rooms),
  "remote.leave": async ({ target, room }) => void (await theOne(target)).leave(room),
  "remote.disconnect": async ({ target, close }) => void (await theOne(target)).disconnect(close),

  // An event of other servers is noted, and answered if there is an answer.
  listen({ event, answer }) {
    io.removeAllListeners(event);
    io.on(event, (...args) => {
      const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
      seen.push([event, ...args]);
      if (ack && answer !== null) ack(fromJson(answer));
    });
  },

  // For the next test: nobody is connected, and nothing of the last one is still to be told.
  async reset() {
    for (const { socket } of clients.values()) socket.disconnect();
    clients.clear();
    io.local.disconnectSockets(true);
    while (io.engine.clientsCount) await new Promise((resolve) => setTimeout(resolve, 1));
    seen.length = 0;
    return toJson(troubles.splice(0));
  },
});

obey();
