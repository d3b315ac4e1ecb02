// Plays tests/clients/session.json by node-redis or ioredis:
// session.mjs node-redis|ioredis plain|cluster HOST:PORT

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const TAGS = ["{a}", "{b}", "{c}", "{d}", "{e}", "{f}", "{g}", "{h}"];

const [library, kind, address] = process.argv.slice(2);
const [host, port] = address.split(":");
// The libraries are installed outside the source tree.
const require = createRequire(process.env.KVORUM_NODE_MODULES + "/");

// A reply as numbers' digits, text, null and arrays.
function meaning(value) {
  if (value === null || value === undefined) return null;
  if (Array.isArray(value)) return value.map(meaning);
  if (value instanceof Map) return [...value].flat().map(meaning);
  if (Buffer.isBuffer(value)) return value.toString();
  if (value instanceof Error) throw value;
  if (typeof value === "object") return Object.entries(value).flat().map(meaning);
  return typeof value === "boolean" ? value : String(value);
}

function fits(got, want, tag) {
  if (want === null) return got === null || got === false;
  if (Array.isArray(want)) {
    return Array.isArray(got) && got.length === want.length
      && want.every((one, i) => fits(got[i], one, tag));
  }
  if (typeof want === "object") {
    if (want.any) return true;
    if (want.set) {
      const keys = want.set.map((key) => key.replaceAll("{t}", tag)).sort();
      return JSON.stringify([...got].sort()) === JSON.stringify(keys);
    }
    return "min" in want && Number(got) >= want.min && Number(got) <= want.max;
  }
  if (got === true) return want === "OK" || want === 1;
  if (got === false) return want === 0;
  return got === String(want);
}

async function play(send) {
  const session = JSON.parse(readFileSync(new URL("../session.json", import.meta.url)));
  let count = 0;
  for (const tag of TAGS) {
    // The last command tidies up; it also does so after a run that broke off.
    await send(session.at(-1).command.map((word) => word.replaceAll("{t}", tag)));
    for (const row of session) {
      if (kind === "cluster" && row.only === "plain") continue;
      const command = row.command.map((word) => word.replaceAll("{t}", tag));
      let got, isRight;
      try {
        got = meaning(await send(command));
        isRight = fits(got, row.reply, tag);
      } catch (error) {
        got = error;
        isRight = Boolean(row.reply?.error) && error.message.includes(row.reply.error);
      }
      assert(isRight, `${JSON.stringify(command)}: ${got}, expected ${JSON.stringify(row.reply)}`);
      count += 1;
    }
  }
  return count;
}

// The word that tells a cluster client where to send a command.
function key(command) {
  return command.find((word, i) => i > 0 && word.startsWith("{"));
}

async function nodeRedis() {
  const { createClient, createCluster } = require("redis");
  const url = `redis://${host}:${port}`;
  const isCluster = kind === "cluster";
  const client = isCluster ? createCluster({ rootNodes: [{ url }] }) : createClient({ url });
  client.on("error", (error) => { throw error; });
  await client.connect();
  let count = await play((command) =>
    isCluster ? client.sendCommand(key(command), false, command) : client.sendCommand(command));
  const names = Array.from({ length: 100 }, (_, i) => `nr:${i}`);
  const sets = await Promise.all(names.map((name, i) => client.set(name, `${i}`, { EX: 1000 })));
  assert(sets.every((reply) => reply === "OK"));
  const sums = await Promise.all(names.map((name) => client.incr(name)));
  assert.deepEqual(sums, names.map((_, i) => i + 1));
  const gets = await Promise.all(names.map((name) => client.get(name)));
  assert.deepEqual(gets, names.map((_, i) => `${i + 1}`));
  assert.equal(await client.get("nr:none"), null);
  const tagged = { "{nr}a": "1", "{nr}b": "2" };
  assert.equal(await client.mSet(tagged), "OK");
  assert.deepEqual(await client.mGet(["{nr}a", "{nr}none", "{nr}b"]), ["1", null, "2"]);
  count += 303;
  if (!isCluster) {
    const found = new Set();
    for await (const keys of client.scanIterator({ MATCH: "nr:*", COUNT: 10 })) {
      for (const name of [keys].flat()) found.add(name);
    }
    assert.equal(found.size, 100);
    assert.equal(await client.del(names), 100);
  } else {
    const dels = await Promise.all(names.map((name) => client.del(name)));
    assert(dels.every((reply) => reply === 1));
  }
  assert.equal(await client.del(Object.keys(tagged)), 2);
  await client.close();
  return count + 2;
}

async function ioredis() {
  const Redis = require("ioredis");
  const isCluster = kind === "cluster";
  const client = isCluster
    ? new Redis.Cluster([{ host, port: Number(port) }])
    : new Redis(Number(port), host);
  client.on("error", (error) => { throw error; });
  let count = await play((command) => client.call(...command));
  const names = Array.from({ length: 100 }, (_, i) => `io:${i}`);
  const sets = await Promise.all(names.map((name, i) => client.set(name, i, "EX", 1000)));
  assert(sets.every((reply) => reply === "OK"));
  const sums = await Promise.all(names.map((name) => client.incr(name)));
  assert.deepEqual(sums, names.map((_, i) => i + 1));
  const gets = await Promise.all(names.map((name) => client.get(name)));
  assert.deepEqual(gets, names.map((_, i) => `${i + 1}`));
  assert.equal(await client.get("io:none"), null);
  assert.equal(await client.mset({ "{io}a": "1", "{io}b": "2" }), "OK");
  assert.deepEqual(await client.mget("{io}a", "{io}none", "{io}b"), ["1", null, "2"]);
  const piped = await client.pipeline().set("{io}a", "x").get("{io}a").incr("{io}a").exec();
  assert.deepEqual(piped.slice(0, 2), [[null, "OK"], [null, "x"]]);
  assert.match(piped[2][0].message, /not an integer/);
  count += 306;
  if (!isCluster) {
    const found = new Set();
    for await (const keys of client.scanStream({ match: "io:*", count: 10 })) {
      keys.forEach((name) => found.add(name));
    }
    assert.equal(found.size, 100);
    assert.equal(await client.del(names), 100);
  } else {
    const dels = await Promise.all(names.map((name) => client.del(name)));
    assert(dels.every((reply) => reply === 1));
  }
  assert.equal(await client.del("{io}a", "{io}b"), 2);
  await client.quit();
  return count + 3;
}

const version = require(`${library === "ioredis" ? "ioredis" : "redis"}/package.json`).version;
try {
  const count = await (library === "ioredis" ? ioredis() : nodeRedis());
  console.log(`client ${library} ${version} ${kind} ok (${count} commands)`);
  process.exit(0);
} catch (error) {
  console.error(`client ${library} ${version} ${kind}: ${error.stack}`);
  process.exit(1);
}
