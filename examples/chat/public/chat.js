// The page's side of the chat. What the server says about rooms and people is kept in `rooms`; the functions under
// "showing" draw it, out of pieces.js.

import { Group, arrange, avatarOf, dress, el, tally, typingText } from "./pieces.js";
import { io } from "./socket.io-client/socket.io.esm.min.js";

const ANSWER_WITHIN = 5000; // ms; the server answers at once or something is wrong
const TYPING_EVERY = 2000; // ms between two notes that I am typing ...
const TYPING_FOR = 4000; // ... and how long one is believed: a lost one must not leave somebody typing for ever
const KEEP = 300; // groups and notices per room; a page left open for a week must not grow without end

const $ = (id) => document.getElementById(id);
const frame = $("log-frame");
const draft = $("draft");

// ---- who I am -----------------------------------------------------------------------------------------------------
// sessionStorage is per tab, so two tabs can be two people. The key proves after a lost connection that the name is
// still mine while the server has not noticed yet that the old connection is dead.

const me = { name: sessionStorage.getItem("name") ?? "", key: sessionStorage.getItem("secret") ?? newKey() };

function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID() is missing on plain http
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- rooms --------------------------------------------------------------------------------------------------------
// A room that I am in is `joined`, also while the connection is down: it is what to join when it is up again.

const rooms = new Map(); // name -> room
let current = null; // the room on show

function roomNamed(name) {
  if (!rooms.has(name)) rooms.set(name, newRoom(name));
  return rooms.get(name);
}

function newRoom(name) {
  const button = el("button", { type: "button" });
  button.addEventListener("click", async () => {
    const error = await enter(name);
    if (error) addNotice(current, error);
  });
  const item = el("li", {}, button);
  const log = el("div", { className: "log", role: "log", ariaLive: "polite" }); // each its own: switching reads nothing aloud
  log.append(el("div", { className: "opening" }, el("strong", {}, `# ${name}`), "The conversation starts here. Say hello."));
  return { name, button, item, log, joined: false, people: [], unread: 0, draft: "", typists: new Map(), group: null };
}

const joinedRooms = () => [...rooms.values()].filter((room) => room.joined);

// ---- the connection -----------------------------------------------------------------------------------------------

const socket = io({ autoConnect: false, auth: (send) => send(me) });
let seenBefore = false; // whether this page has been connected: then it has missed something when it is again
let typingNotedAt = 0;

async function ask(event, ...args) {
  if (!socket.connected) return { error: "You are offline." };
  try {
    return await socket.timeout(ANSWER_WITHIN).emitWithAck(event, ...args);
  } catch {
    return { error: "The server did not answer." };
  }
}

socket.on("connect", async () => {
  setState("online");
  sessionStorage.setItem("name", me.name);
  sessionStorage.setItem("secret", me.key);
  const mine = joinedRooms();
  const answers = await Promise.all(mine.map((room) => ask("join", room.name)));
  const refused = answers.find((answer) => answer.error);
  if (!socket.connected) return; // lost again already: the next connect starts over
  if (refused) return showWelcome(refused.error);
  if (seenBefore) for (const room of mine) addNotice(room, "You are back. What was said while you were away is not shown.");
  else if (!$("welcome").hidden) showChat();
  seenBefore = true;
});

socket.on("connect_error", (error) => {
  if (!socket.active) showWelcome(error.message); // refused: it will not try again by itself
  else if (!$("welcome").hidden) $("join-error").textContent = "The server cannot be reached. Still trying…";
  else setState("trying");
});

socket.on("disconnect", (reason) => {
  for (const room of rooms.values()) forgetTypists(room);
  setState(reason === "io server disconnect" ? "ended" : "trying");
});

socket.on("rooms", (listed) => {
  for (const room of rooms.values()) room.people = [];
  for (const [name, people] of Object.entries(listed)) roomNamed(name).people = people;
  for (const room of rooms.values()) if (!room.joined && !Object.hasOwn(listed, room.name)) rooms.delete(room.name);
  drawRooms();
  drawPeople();
});

/** Listen to an event of a room; one that is still under way when I leave it is over for me. */
function onRoom(event, listener) {
  socket.on(event, (name, ...args) => rooms.get(name)?.joined && listener(rooms.get(name), ...args));
}

onRoom("message", (room, author, text, at) => {
  forgetTypist(room, author);
  follow(room, () => addMessage(room, author, text, at));
  if (room !== current || document.hidden) room.unread += 1;
  drawRooms();
});

onRoom("joined", (room, who) => addNotice(room, `${who} joined`));

onRoom("left", (room, who) => {
  forgetTypist(room, who);
  addNotice(room, `${who} left`);
});

onRoom("typing", (room, who) => {
  clearTimeout(room.typists.get(who));
  room.typists.set(who, setTimeout(() => forgetTypist(room, who), TYPING_FOR));
  drawTyping();
});

window.addEventListener("online", () => !socket.connected && drawState());
window.addEventListener("offline", drawState);

// ---- doing --------------------------------------------------------------------------------------------------------

function signIn(name, roomNames) {
  me.name = name.normalize("NFKC").trim().replace(/\s+/g, " "); // as the server does
  rooms.clear();
  for (const roomName of roomNames) roomNamed(roomName).joined = true;
  current = null;
  seenBefore = false;
  socket.connect();
}

/** Show a room, joining it first if need be. Returns why that was refused, or nothing. */
async function enter(name) {
  const room = roomNamed(name);
  if (!room.joined) {
    room.joined = true; // before the answer, so that nothing is missed which comes right behind it
    const { error } = await ask("join", name);
    if (error) {
      room.joined = false;
      return error;
    }
  }
  show(room);
}

async function leave(room) {
  const answer = await ask("leave", room.name);
  if (answer.error) return addNotice(room, answer.error);
  const [next] = joinedRooms().filter((other) => other !== room);
  rooms.delete(room.name); // and its messages with it
  roomNamed(room.name).people = room.people.filter((name) => name !== me.name);
  show(next);
}

async function say(room, text) {
  const bubble = addMessage(room, me.name, text, Date.now());
  toLatest();
  await deliver(bubble, room, text);
}

async function deliver(bubble, room, text) {
  bubble.classList.add("sending");
  const { error } = await ask("say", room.name, text);
  bubble.classList.remove("sending");
  if (!error) return;
  bubble.classList.add("lost");
  const retry = el("button", { className: "retry", type: "button" }, `${error} Try again`);
  retry.addEventListener("click", () => {
    retry.remove();
    bubble.classList.remove("lost");
    deliver(bubble, room, text);
  });
  bubble.after(retry);
}

function noteTyping() {
  const now = Date.now();
  if (!draft.value.trim() || !socket.connected || now - typingNotedAt < TYPING_EVERY) return;
  typingNotedAt = now;
  socket.volatile.emit("typing", current.name);
}

function forgetTypist(room, name) {
  clearTimeout(room.typists.get(name));
  room.typists.delete(name);
  drawTyping();
}

function forgetTypists(room) {
  for (const name of room.typists.keys()) forgetTypist(room, name);
}

// ---- showing ------------------------------------------------------------------------------------------------------

function addMessage(room, author, text, at) {
  if (!room.group?.takes(author, at)) {
    room.group = new Group(author, author === me.name, at);
    append(room, room.group.item);
  }
  return room.group.add(text, at);
}

function addNotice(room, text) {
  room.group = null;
  follow(room, () => append(room, el("div", { className: "notice fresh" }, text)));
}

function append(room, item) {
  room.log.append(item);
  while (room.log.children.length > KEEP) room.log.firstElementChild.remove();
}

let following = true; // whether the reader is at the end of the log, and so wants to stay there
const nearEnd = () => frame.scrollHeight - frame.scrollTop - frame.clientHeight < 80;

/** Keep the newest in view while something is added, unless the reader has scrolled up: then offer a way down. */
function follow(room, add) {
  add();
  if (room !== current) return;
  if (following) toLatest();
  else $("to-latest").hidden = false;
}

function toLatest() {
  following = true;
  frame.scrollTop = frame.scrollHeight;
  $("to-latest").hidden = true;
}

function show(room) {
  if (current) current.draft = draft.value;
  current = room;
  room.unread = 0;
  frame.replaceChildren(room.log);
  draft.value = room.draft;
  draft.placeholder = `Message #${room.name}`;
  $("room-title").textContent = `# ${room.name}`;
  history.replaceState(null, "", `?room=${encodeURIComponent(room.name)}`); // a link to share: without my name
  const others = joinedRooms().filter((other) => other !== room);
  sessionStorage.setItem("rooms", JSON.stringify([room, ...others].map(({ name }) => name)));
  openPanel(null);
  drawRooms();
  drawPeople();
  drawTyping();
  fitDraft();
  toLatest();
  if (matchMedia("(pointer: fine)").matches) draft.focus(); // on a phone it would open the keyboard
}

function readScroll() {
  following = nearEnd();
  if (following) $("to-latest").hidden = true;
}

function drawRooms() {
  const busiest = (a, b) => b.people.length - a.people.length || a.name.localeCompare(b.name);
  const others = [...rooms.values()].filter((room) => !room.joined).sort(busiest);
  arrange($("your-rooms"), joinedRooms().map(drawRoom));
  arrange($("other-rooms"), others.map(drawRoom));
  $("other-heading").hidden = others.length === 0;
  const unread = joinedRooms().reduce((sum, room) => sum + room.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}#${current?.name ?? ""} · Parlour`;
  $("unread-elsewhere").hidden = unread === 0;
}

function drawRoom(room) {
  const label = el("span", { className: room.unread ? "label unread" : "label" }, room.name);
  room.button.replaceChildren(el("span", { className: "hash", ariaHidden: "true" }, "#"), label, tally(room.unread, room.people.length));
  room.button.setAttribute("aria-current", String(room === current));
  return room.item;
}

function drawPeople() {
  if (!current) return;
  const others = current.people.filter((name) => name !== me.name).sort((a, b) => a.localeCompare(b));
  const here = current.people.includes(me.name) ? [me.name, ...others] : others;
  $("people").replaceChildren(
    ...here.map((name) => {
      const you = name === me.name ? [el("span", { className: "you" }, "you")] : [];
      return el("li", {}, avatarOf(name), el("span", { className: "label" }, name), ...you);
    }),
  );
  $("faces").replaceChildren(...here.slice(0, 3).map(avatarOf));
  $("room-summary").textContent = others.length === 0 ? "Only you so far" : `${here.length} people here`;
  $("leave").hidden = joinedRooms().length < 2; // there is always one room to be in
}

function drawTyping() {
  $("typing").textContent = typingText([...(current?.typists.keys() ?? [])]);
}

let state = "trying";
function setState(next) {
  state = next;
  drawState();
}

function drawState() {
  const offline = state === "trying" && !navigator.onLine;
  const label = { online: "Online", ended: "Signed out", trying: seenBefore ? "Reconnecting…" : "Connecting…" }[state];
  $("state").textContent = offline ? "Offline" : label;
  $("chat").dataset.state = offline || state === "ended" ? "offline" : state;
  $("banner").hidden = state === "online" || (state === "trying" && !seenBefore && !offline);
  $("banner-text").textContent = {
    trying: offline ? "You are offline. What you write is kept here." : "The connection is lost. Trying again…",
    ended: "You have come in from another tab.",
  }[state] ?? "";
  $("banner-action").hidden = state !== "ended";
  fitDraft();
}

function fitDraft() {
  draft.style.height = "auto";
  draft.style.height = `${draft.scrollHeight}px`;
  const left = draft.maxLength - draft.value.length;
  $("left-over").textContent = left < 200 ? `${left} left` : "";
  $("send").disabled = !draft.value.trim() || state !== "online";
}

function openPanel(panel) {
  const chat = $("chat");
  const before = chat.dataset.panel;
  chat.dataset.panel = panel ?? "";
  $("scrim").hidden = !panel;
  document.querySelector(".conversation").inert = Boolean(panel);
  $("show-rooms").setAttribute("aria-expanded", String(panel === "rooms"));
  $("show-people").setAttribute("aria-expanded", String(panel === "people"));
  if (panel === "rooms") $("your-rooms").querySelector("[aria-current=true]")?.focus();
  if (panel === "people") $("people-panel").focus();
  if (!panel && before) $(`show-${before}`).focus();
}

function showWelcome(error = "") {
  socket.disconnect();
  $("chat").hidden = true;
  $("welcome").hidden = false;
  $("join-error").textContent = error;
  $("join").querySelector("button").disabled = false;
  $("name").value ||= me.name;
  dress($("preview"), $("name").value);
  $("name").focus();
}

function showChat() {
  $("welcome").hidden = true;
  $("chat").hidden = false;
  $("my-name").textContent = me.name;
  dress($("my-avatar"), me.name);
  show(joinedRooms()[0]);
}

// ---- what the user does -------------------------------------------------------------------------------------------

const slug = (text) => text.trim().toLowerCase().replace(/^#/, "").trim().replace(/\s+/g, "-");

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  $("join-error").textContent = "";
  $("join").querySelector("button").disabled = true;
  signIn($("name").value.trim(), [slug($("first-room").value) || "general"]);
});
$("name").addEventListener("input", () => dress($("preview"), $("name").value));

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = draft.value.trim();
  if (!text || state !== "online") return;
  draft.value = "";
  typingNotedAt = 0;
  fitDraft();
  say(current, text);
});
draft.addEventListener("input", () => {
  fitDraft();
  noteTyping();
});
draft.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return; // Enter ends a composition in many scripts
  event.preventDefault();
  $("composer").requestSubmit();
});

$("new-room").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = $("room-name");
  const name = slug(input.value);
  if (!name) return input.focus();
  input.setCustomValidity((await enter(name)) ?? "");
  if (input.reportValidity()) input.value = "";
});
$("room-name").addEventListener("input", () => $("room-name").setCustomValidity(""));

$("leave").addEventListener("click", () => leave(current));
$("banner-action").addEventListener("click", () => {
  setState("trying");
  socket.connect();
});
$("to-latest").addEventListener("click", toLatest);
$("show-rooms").addEventListener("click", () => openPanel("rooms"));
$("show-people").addEventListener("click", () => openPanel("people"));
$("scrim").addEventListener("click", () => openPanel(null));
$("sign-out").addEventListener("click", () => {
  socket.disconnect();
  sessionStorage.clear();
  location.assign(location.pathname);
});
new ResizeObserver(() => following && toLatest()).observe(frame); // a phone's keyboard, a turned phone, a longer draft
frame.addEventListener("scroll", readScroll, { passive: true });

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && $("chat").dataset.panel) openPanel(null);
  if (!event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key) || !current) return;
  event.preventDefault();
  const mine = joinedRooms();
  const step = event.key === "ArrowDown" ? 1 : -1;
  show(mine[(mine.indexOf(current) + step + mine.length) % mine.length]);
});
for (const width of ["46rem", "68rem"]) { // where a panel becomes a column, or the other way round: see style.css
  matchMedia(`(max-width: ${width})`).addEventListener("change", () => openPanel(null));
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !current) return;
  current.unread = 0;
  drawRooms();
});

// ---- start: `?name=Ada&room=general` skips the card, and so does a reload ------------------------------------------

const query = new URLSearchParams(location.search);
const asked = slug(query.get("room") ?? "");
const remembered = JSON.parse(sessionStorage.getItem("rooms") ?? "[]");
const name = query.get("name") ?? me.name;
$("first-room").value = asked || "general";
if (name) {
  const places = [asked, ...remembered].filter(Boolean);
  signIn(name, places.length ? places : ["general"]);
  setState("trying");
  showChat();
} else {
  showWelcome();
}
