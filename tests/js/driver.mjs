// Drives real `socket.io-client` sockets for the tests in Python (see ../js_client.py).
//
// Commands come as lines of JSON on stdin, `{call, do, client, ...}`, and each is answered by one line,
// `{call, result}` or `{call, error}`. Whatever happens to a client in between is a line too,
// `{client, event, args, wantsAck}`, in the order in which the client saw it. Bytes travel as `{"$binary": base64}`.
// The process ends with its stdin, so that it never outlives the tests.

import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Fetch, io } from "socket.io-client";
import ioV2 from "socket.io-client-v2";
import msgpackParser from "socket.io-msgpack-parser";

export const clients = new Map();
const parsers = { msgpack: msgpackParser };

const plainObject = (value, convert) =>
  Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, convert(entry)]));

export function toJson(value) {
  if (value instanceof ArrayBuffer) return { $binary: Buffer.from(value).toString("base64") };
  if (ArrayBuffer.isView(value)) {
    return { $binary: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64") };
  }
  if (value instanceof Date) return { $date: value.toISOString() };
  if (Array.isArray(value)) return value.map(toJson);
  if (value !== null && typeof value === "object") return plainObject(value, toJson);
  return value === undefined ? null : value;
}

export function fromJson(value) {
  if (Array.isArray(value)) return value.map(fromJson);
  if (value === null || typeof value !== "object") return value;
  if ("$date" in value) return new Date(value.$date);
  return "$binary" in value ? Buffer.from(value.$binary, "base64") : plainObject(value, fromJson);
}

const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

// The client's errors point to sockets and requests; this is what can be told of them.
function describe(details) {
  if (details === undefined || details === null) return null;
  const { description, context } = details;
  const isCode = ["number", "string"].includes(typeof description);
  return {
    message: details.message ?? null,
    description: isCode ? description : (description?.message ?? null),
    closeCode: description?.code ?? context?.code ?? null,
    body: context?.responseText ?? null,
  };
}

class Client {
  constructor(id, socket) {
    this.id = id;
    this.socket = socket;
    this.replies = new Map();
    if (socket.onAny) socket.onAny((event, ...args) => this.received(event, args));
    else this.listenToV2();
    socket.on("connect", () => this.saw("connect"));
    socket.on("connect_error", (error) => this.saw("connect_error", error.message, error.data, describe(error)));
    socket.on("disconnect", (reason, details) => this.saw("disconnect", reason, describe(details)));
  }

  // Version 2 has no onAny, but a method that takes every event; and it says `error` when it is refused.
  listenToV2() {
    this.socket.onevent = ({ data: [event, ...args], id }) =>
      this.received(event, id === undefined || id === null ? args : [...args, this.socket.ack(id)]);
    this.socket.on("error", (refusal) => this.saw("error", refusal));
  }

  saw(event, ...args) {
    if (clients.get(this.id) !== this) return; // it was one of an earlier test
    tell({ client: this.id, event, args: toJson(args), wantsAck: false });
  }

  received(event, args) {
    if (clients.get(this.id) !== this) return;
    const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
    tell({ client: this.id, event, args: toJson(args), wantsAck: ack !== undefined });
    const reply = this.replies.get(event);
    if (ack && reply) ack(...(reply === "echo" ? args : reply));
  }

  // A manager opens a new engine for each connection, so the engine's events are asked for again each time.
  watchManager() {
    const manager = this.socket.io;
    manager.on("open", () => manager.engine.on("upgrade", (transport) => this.saw("engine.upgrade", transport.name)));
    manager.on("reconnect_attempt", (attempt) => this.saw("manager.reconnect_attempt", attempt));
    manager.on("reconnect", (attempt) => this.saw("manager.reconnect", attempt));
    manager.on("reconnect_failed", () => this.saw("manager.reconnect_failed"));
  }
}

export const commands = {
  ping: () => "pong",

  open({ client, url, namespace, options, version }) {
    // One connection for each request, as without an agent; but an agent knows them, for `drop`.
    const agent = url.startsWith("https:") ? new HttpsAgent() : new HttpAgent();
    const { parser, ...others } = fromJson(options);
    const connect = version === 2 ? ioV2 : io;
    // Long-polling with fetch(), which in Node is the one that asks for compressed answers.
    if (others.transports?.[0] === "fetch") others.transports = [Fetch];
    const opened = new Client(client, connect(url + namespace, { agent, ...others, parser: parsers[parser] }));
    opened.watchManager();
    clients.set(client, opened);
  },

  join({ client, sibling, namespace, options }) {
    const manager = clients.get(sibling).socket.io;
    clients.set(client, new Client(client, manager.socket(namespace, fromJson(options))));
  },

  emit({ socket, event, args, volatile }) {
    (volatile ? socket.volatile : socket).emit(event, ...fromJson(args));
  },

  emitWithAck({ socket, event, args, timeout }) {
    return new Promise((resolve, reject) => {
      if (timeout === null) {
        socket.emit(event, ...fromJson(args), (...answer) => resolve(answer));
      } else {
        const done = (error, ...answer) => (error ? reject(error) : resolve(answer));
        socket.timeout(timeout).emit(event, ...fromJson(args), done);
      }
    });
  },

  async bulk({ socket, event, count, interval }) {
    for (let number = 0; number < count; number++) {
      socket.emit(event, number);
      if (interval !== null) await new Promise((resolve) => setTimeout(resolve, interval));
    }
  },

  reply({ client, event, reply }) {
    clients.get(client).replies.set(event, fromJson(reply));
  },

  connect({ socket }) {
    socket.connect();
  },

  // The next connection goes to another server.
  move({ socket, url }) {
    socket.io.uri = url;
  },

  disconnect({ socket }) {
    socket.disconnect();
  },

  closeEngine({ socket }) {
    socket.io.engine.close();
  },

  // What a lost network looks like: no close packet and no close frame. A poll that fails would still say goodbye with
  // a POST, unless its transport believes that it is closed already.
  drop({ socket }) {
    const { transport } = socket.io.engine;
    if (transport.name === "websocket") {
      transport.ws.terminate();
    } else {
      transport.readyState = "closed";
      for (const connection of Object.values(transport.opts.agent.sockets).flat()) connection.destroy();
    }
  },

  // For the next test: nobody is connected, or tries to be, and nothing of the last one is still to be told.
  reset() {
    const managers = new Set([...clients.values()].map(({ socket }) => socket.io));
    clients.clear();
    for (const manager of managers) {
      manager[manager._close ? "_close" : "close"](); // version 2 has only the latter
      manager.opts.agent?.destroy();
    }
  },

  state({ socket }) {
    return {
      connected: socket.connected,
      active: socket.active,
      id: socket.id ?? null,
      recovered: socket.recovered ?? false,
      transport: socket.io.engine?.transport?.name ?? null,
    };
  },
};

async function carryOut({ call, do: name, ...command }) {
  try {
    if (!Object.hasOwn(commands, name)) throw new Error(`no such command: ${name}`);
    const result = await commands[name]({ ...command, socket: clients.get(command.client)?.socket });
    tell({ call, result: toJson(result) });
  } catch (error) {
    tell({ call, error: error.message });
  }
}

export function obey() {
  createInterface({ input: process.stdin })
    .on("line", (line) => carryOut(JSON.parse(line)))
    .on("close", () => process.exit(0));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) obey();
