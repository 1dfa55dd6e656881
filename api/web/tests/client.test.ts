import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, Refused, Unreachable } from "../client/index.ts";
import { upTo } from "./reading.ts";
import { KEY, problem, RUN, World } from "./world.ts";

function client(world: World): Client {
  return new Client({ url: "http://runwire.test/", credential: KEY, surroundings: world.around });
}

test("a run is iterated over to its end", async () => {
  const world = new World();
  for (const type of ["accepted", "token", "result"]) world.add(type);
  const seen: string[] = [];
  for await (const frame of client(world).follow(RUN)) seen.push(frame.type);
  assert.deepEqual(seen, ["accepted", "token", "result"]);
});

test("a reader of some types is given these, what takes them back and the end, over either way", async () => {
  for (const buffers of [false, true]) {
    const world = new World();
    world.buffers = buffers;
    const seen: string[] = [];
    const story = client(world).follow(RUN, {
      types: ["finding"],
      onFrames: (frames) => seen.push(...frames.map(({ type }) => type)),
    });
    await world.pass(2_000);
    for (const type of ["accepted", "token", "finding", "retry", "progress"]) world.add(type);
    await world.pass(10_000);
    assert.equal(story.condition.state, buffers ? "polling" : "live");
    world.add("error");
    await world.pass(10_000);
    assert.deepEqual(seen, ["finding", "retry", "error"]);
    assert.equal(story.cursor, 6);
    assert.equal(world.paths("events")[0], "events?after=0&types=finding");
  }
});

test("whoever stops iterating leaves the stream", async () => {
  const world = new World();
  world.add();
  const story = client(world).follow(RUN);
  for await (const frame of story) {
    assert.equal(frame.seq, 1);
    break;
  }
  await world.settle();
  assert.equal(world.streams, 0);
  assert.deepEqual(await story.ended, { how: "left" });
});

test("a signal ends it, before it began and afterwards", async () => {
  const world = new World();
  const left = new AbortController();
  const story = client(world).follow(RUN, { signal: left.signal });
  await world.settle();
  assert.equal(world.streams, 1);
  left.abort();
  assert.deepEqual(await story.ended, { how: "left" });
  const never = client(world).follow(RUN, { signal: left.signal });
  assert.deepEqual(await never.ended, { how: "left" });
  assert.equal(world.asked.length, 1);
});

test("a refusal is thrown with the words of the server", async () => {
  const world = new World();
  world.refusals = [problem(404)];
  const story = client(world).follow(RUN);
  await assert.rejects(
    async () => {
      for await (const frame of story) assert.fail(frame.type);
    },
    (error) => error instanceof Refused && error.status === 404 && error.message === "No: 404",
  );
});

test("a reader that takes nothing is not read for without bound", async () => {
  const world = new World();
  const story = client(world).follow(RUN);
  await world.settle();
  for (let times = 0; times < 3_000; times += 1) {
    world.add();
    if (times % 100 === 0) await world.settle();
  }
  await world.settle();
  assert.ok(story.cursor < 1_300, `${story.cursor} events are held`);
  world.add("result");
  const seqs: number[] = [];
  for await (const frame of story) seqs.push(frame.seq ?? 0);
  assert.deepEqual(seqs, upTo(3_001));
});

test("a submission is sent again under one name until it is answered", async () => {
  const world = new World();
  world.refusals = [problem(503), problem(429, { "Retry-After": "2" })];
  const submitted = client(world).submit("contract_review", { text: "Clause 1" }, { title: "NDA" });
  await world.pass(10_000);
  await submitted;
  const names = new Set(world.asked.map(({ headers }) => headers.get("Idempotency-Key")));
  assert.equal(world.asked.length, 3);
  assert.equal(names.size, 1);
  assert.match([...names][0] ?? "", /^[0-9a-f]{32}$/);
});

test("a run that takes up another is submitted by the other's name", async () => {
  const world = new World();
  const told: unknown = await client(world).continueRun(RUN, { once: "mine" });
  assert.deepEqual(told, { path: "/v1/runs", body: JSON.stringify({ continues: RUN }) });
  assert.equal(world.asked[0]?.headers.get("Idempotency-Key"), "mine");
});

test("a request that is refused is sent once, and says why", async () => {
  const world = new World();
  world.refusals = [problem(422)];
  await assert.rejects(
    client(world).decide(RUN, { escalation: 1, seen: { seq: 1, chain: "" }, choice: "yes" }),
    Refused,
  );
  assert.equal(world.asked.length, 1);
});

test("a server that stays away is told as that", async () => {
  const world = new World();
  world.down = true;
  const asked = assert.rejects(client(world).state(RUN), Unreachable);
  await world.pass(60_000);
  await asked;
  assert.equal(world.asked.length, 5);
});

test("what one run finds out about the network holds for the next one", async () => {
  const world = new World();
  world.buffers = true;
  const one = client(world);
  const first = one.follow(RUN, { onFrames: () => undefined });
  await world.pass(2_000);
  world.add();
  await world.pass(6_000);
  assert.equal(first.condition.reason, "buffered");
  const before = world.paths("events").length;
  const second = one.follow(RUN, { onFrames: () => undefined });
  await world.pass(1_000);
  assert.equal(second.condition.reason, "buffered");
  assert.equal(world.paths("events").length, before);
  one.close();
});
