// The emitter of `@socket.io/redis-emitter`, for the tests in Python (see ../interop/test_emitters.py).
//
//   node emitter.mjs URL KEY
//
// Each line of stdin is a list of steps, `[["of", "/news"], ["to", ["a", "b"]], ["emit", "x", 1]]`, which an emitter
// takes one after the other; it is answered by a line, `null` or the text of an error. Bytes are `{"$binary": base64}`.
// The process ends with its stdin.

import { createInterface } from "node:readline";
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";

const [url, key] = process.argv.slice(2);

function fromJson(value) {
  if (Array.isArray(value)) return value.map(fromJson);
  if (value === null || typeof value !== "object") return value;
  if ("$binary" in value) return Buffer.from(value.$binary, "base64");
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, fromJson(entry)]));
}

const redis = await createClient({ url }).connect();
let last = Promise.resolve();
// The emitter does not wait for Redis, so what it publishes passes through here.
const client = { publish: (...args) => (last = redis.publish(...args)) };

for await (const line of createInterface({ input: process.stdin })) {
  let answer = null;
  try {
    let emitter = new Emitter(client, { key });
    for (const [step, ...args] of JSON.parse(line)) emitter = emitter[step](...fromJson(args));
    await last;
  } catch (error) {
    answer = error.message;
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
