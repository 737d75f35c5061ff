// A pane for each server of the cluster; `?ports=3000,3001` says where they are.

import { io } from "/socket.io/socket.io.esm.min.js";

const ports = new URLSearchParams(location.search).get("ports")?.split(",") ?? [location.port];
const template = document.querySelector("template");

for (const port of ports) {
  const socket = io(`${location.protocol}//${location.hostname}:${port}`);
  const pane = template.content.cloneNode(true).firstElementChild;
  const [title, state, form, input, list] = ["h2", ".state", "form", "input", "ol"].map((name) => pane.querySelector(name));
  pane.id = `port-${port}`;
  title.textContent = `Port ${port}`;

  const refresh = async () => {
    const counts = await socket.emitWithAck("who");
    const parts = Object.entries(counts).map(([server, count]) => `${server}: ${count}`);
    state.textContent = `connected; clients in the cluster: ${parts.sort().join(", ")}`;
  };

  socket.on("connect", refresh);
  socket.on("disconnect", (reason) => (state.textContent = `disconnected: ${reason}`));
  socket.on("said", (text, server) => {
    const line = document.createElement("li");
    line.append(Object.assign(document.createElement("b"), { textContent: `${server}: ` }), text);
    list.append(line);
    list.scrollTop = list.scrollHeight;
    refresh();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    socket.emit("say", input.value);
    input.value = "";
  });
  document.querySelector("#servers").append(pane);
}
