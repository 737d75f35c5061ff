// The application on socket.io, on all defaults but for the heartbeats: node node.mjs PORT
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { pingInterval: 1000 * Number(process.env.PING_INTERVAL ?? 25) });

io.on("connection", (socket) => {
  socket.join("r");
  socket.on("echo", (data) => socket.emit("echo", data));
  socket.on("ack", (data, answer) => answer(data));
  socket.on("bcast", (data) => io.to("r").emit("m", data));
});

http.listen(Number(process.argv[2]), "127.0.0.1", 4096);
