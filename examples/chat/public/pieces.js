// The pieces that the page is made of. Text that people typed becomes text nodes here, never markup.

const GROUP_WITHIN = 5 * 60_000; // ms; later messages of the same person get a new heading with its time
const GROUP_SIZE = 20;

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** One element with properties and children; a string among the children becomes a text node. */
export function el(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** One of twelve colours, the same on every page for the same name (FNV-1a). */
function tone(name) {
  let hash = 0x811c9dc5;
  for (const letter of name.toLowerCase()) hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193);
  return String((hash >>> 0) % 12);
}

function initials(name) {
  const words = name.split(/\s+/);
  const letters = words.length > 1 ? [words[0], words.at(-1)].map((word) => [...word][0]) : [...name].slice(0, 2);
  return letters.join("").toUpperCase();
}

/** Give an avatar the initials and the colour of a name. */
export function dress(avatar, name) {
  name = name.trim();
  avatar.textContent = initials(name);
  avatar.dataset.tone = name ? tone(name) : "none";
  return avatar;
}

export const avatarOf = (name) => dress(el("span", { className: "avatar", ariaHidden: "true" }), name);

/** Consecutive messages of one person under one heading; `item` is what goes into the log. */
export class Group {
  constructor(author, own, at) {
    this.author = author;
    this.at = at;
    const name = el("span", { className: own ? "unseen" : "author" }, own ? "You" : author);
    name.dataset.tone = tone(author);
    const time = el("time", { dateTime: new Date(at).toISOString(), title: calendar.format(at) }, clock.format(at));
    this.bubbles = el("div", { className: "bubbles" });
    this.item = el("div", { className: own ? "group own fresh" : "group fresh" });
    this.item.append(avatarOf(author), el("div", { className: "byline" }, name, time), this.bubbles);
  }

  takes(author, at) {
    return author === this.author && at - this.at < GROUP_WITHIN && this.bubbles.children.length < GROUP_SIZE;
  }

  add(text, at) {
    const bubble = el("div", { className: "bubble", dir: "auto", title: clock.format(at) }, text);
    this.bubbles.append(bubble);
    return bubble;
  }
}

/** What stands at the end of a room's line: unread messages if there are some, else how many people are in. */
export function tally(unread, people) {
  const [className, number, unit] = unread ? ["badge", unread, " unread"] : ["count", people, " here"];
  if (!number) return el("span", { className: "unseen" }, "empty");
  return el("span", { className }, number > 99 ? "99+" : `${number}`, el("span", { className: "unseen" }, unit));
}

/** Replace a list's items only where they differ: moving the focused one would take the focus from it. */
export function arrange(list, items) {
  const same = items.length === list.children.length && items.every((item, i) => item === list.children[i]);
  if (!same) list.replaceChildren(...items);
}

/** "Ada is typing…" for any number of names. */
export function typingText(names) {
  if (names.length === 0) return "";
  if (names.length > 2) return "Several people are typing…";
  return `${names.join(" and ")} ${names.length > 1 ? "are" : "is"} typing…`;
}
