// The twin of server.py: the same events, in the same cluster. `node server.mjs NAME PORT REDIS`

import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const [name, port, url] = process.argv.slice(2);

async function connect() {
  const client = createClient({ url });
  client.on("error", (error) => console.error(`${name}: ${error.message || error.code}`));
  await client.connect();
  return client;
}

const http = createServer();
const io = new Server(http, {
  adapter: createAdapter(await connect(), await connect()),
  cors: { origin: /^http:\/\/(localhost|127\.0\.0\.1)(:[0-9]+)?$/ },
});

const isText = (value) => typeof value === "string" && value.length > 0 && value.length <= 1000;

io.on("connection", (socket) => {
  socket.data.server = name;
  socket.on("say", (text) => {
    if (isText(text)) io.emit("said", text, name);
  });
  socket.on("join", (room) => {
    if (isText(room)) socket.join(`room:${room}`);
  });
  socket.on("say to", (room, text) => {
    if (isText(room) && isText(text)) io.to(`room:${room}`).emit("said", text, name);
  });
  socket.on("who", async (answer) => {
    const counts = {};
    for (const { data } of await io.fetchSockets()) counts[data.server] = (counts[data.server] ?? 0) + 1;
    answer(counts);
  });
});

http.listen(Number(port), "127.0.0.1", () => {
  console.log(`${name} is on http://localhost:${http.address().port}/`);
});

// It belongs to whoever has started it, and ends with it, however that ends.
if (process.env.ENDS_WITH_STDIN) process.stdin.on("end", () => process.exit(0)).resume();
