import assert from "node:assert/strict";
import { test } from "node:test";
import { reading, upTo } from "./reading.ts";
import { dice, problem, World } from "./world.ts";

test("a run is followed live to its end, each event once", async () => {
  const world = new World();
  world.add("accepted");
  const one = reading(world);
  await world.pass(10);
  world.add();
  world.add("result");
  await world.pass(10);
  assert.deepEqual(one.seqs, [1, 2, 3]);
  assert.deepEqual(one.states(), ["connecting", "live", "over"]);
  assert.deepEqual(one.ends, [{ how: "ended" }]);
  assert.equal(world.asked.length, 1);
  assert.equal(world.streams, 0);
});

test("a stream that is cut or ends early is taken up again from the last event, at once", async () => {
  const world = new World();
  const one = reading(world);
  for (const clean of [true, false, true, false]) {
    world.add();
    await world.pass(5_000);
    world.cut(clean);
    world.add();
    await world.pass(0);
  }
  world.add("result");
  await world.pass(0);
  assert.deepEqual(one.seqs, upTo(9));
  assert.deepEqual(
    world.paths("events"),
    [0, 1, 3, 5, 7].map((after) => `events?after=${after}`),
  );
  assert.equal(world.paths("poll").length, 0);
});

test("a reader whose cursor is at the end learns that by 204", async () => {
  const world = new World();
  world.add("result");
  const one = reading(world, { after: 1 });
  await world.pass(0);
  assert.deepEqual(one.ends, [{ how: "ended" }]);
});

test("an answer that may pass does not end it: 429, 502, 503, and a page of somebody's", async () => {
  for (const refusal of [problem(429), problem(502), problem(503), new Response("<p>proxy", { status: 200 })]) {
    const world = new World();
    world.add();
    const one = reading(world);
    await world.pass(2_000);
    world.cut();
    world.refusals = [refusal];
    world.add();
    await world.pass(700);
    assert.deepEqual(one.seqs, [1, 2]);
    assert.deepEqual(one.states(), ["connecting", "live", "reconnecting", "live"]);
  }
});

test("Retry-After is obeyed", async () => {
  const world = new World();
  world.refusals = [problem(503, { "Retry-After": "7" })];
  reading(world);
  await world.pass(6_900);
  assert.equal(world.asked.length, 1);
  await world.pass(100);
  assert.equal(world.asked.length, 2);
});

test("what will be said again ends it", async () => {
  for (const status of [403, 404, 400]) {
    const world = new World();
    world.refusals = [problem(status)];
    const one = reading(world);
    await world.pass(60_000);
    assert.equal(world.asked.length, 1);
    assert.deepEqual(one.ends, [{ how: "refused", status, problem: { title: "No", detail: `No: ${status}`, status } }]);
  }
});

test("a server that is away for long is asked less and less, and is no reason to leave the stream", async () => {
  const world = new World();
  world.add();
  const one = reading(world);
  await world.pass(2_000);
  world.down = true;
  world.cut();
  await world.pass(300_000);
  const waits = world.asked.slice(1).map(({ at }, place) => at - (world.asked[place]?.at ?? 0));
  assert.ok(world.asked.length < 30, `${world.asked.length} requests`);
  assert.ok(Math.max(...waits) <= 20_000);
  world.down = false;
  world.add();
  await world.pass(20_000);
  assert.deepEqual(one.seqs, [1, 2]);
  assert.equal(one.now(), "live");
});

test("behind a network that holds streams back it asks with the same cursor within 8 s, and says so", async () => {
  const world = new World();
  world.buffers = true;
  const one = reading(world);
  world.add("accepted");
  for (let second = 0; second < 8; second += 1) {
    await world.pass(1_000);
    world.add();
  }
  assert.equal(one.now(), "polling long-poll buffered");
  await world.pass(3_000);
  assert.deepEqual(one.seqs, upTo(9));
  assert.equal(one.conditions.at(-1)?.everyMs, 1_000);
  world.add("result");
  await world.pass(3_000);
  assert.deepEqual(one.seqs, upTo(10));
  assert.deepEqual(one.ends, [{ how: "ended" }]);
});

test("a silent run behind a good network stays on its stream", async () => {
  const world = new World();
  const one = reading(world);
  for (let times = 0; times < 40; times += 1) {
    await world.pass(15_000);
    world.say(":\n");
  }
  assert.deepEqual(one.states(), ["connecting", "live"]);
  assert.equal(world.paths("events").length, 1);
  assert.ok(world.paths("poll").length < 5); // compared before the first keep-alive, and never after it
});

test("news that a comparison and the stream bring together are no proof", async () => {
  const world = new World();
  world.lagMs = 400;
  const one = reading(world);
  await world.pass(2_800);
  world.add();
  await world.pass(300);
  assert.deepEqual(one.seqs, [1]); // from the short request
  await world.pass(5_000);
  assert.deepEqual(one.states(), ["connecting", "live"]);
  assert.equal(world.paths("events").length, 1);
});

test("a stream that stays mute past the keep-alive where short requests pass is given up", async () => {
  const world = new World();
  world.buffers = true;
  const one = reading(world);
  await world.pass(21_000);
  assert.equal(one.now(), "polling long-poll silent");
});

test("where streams are refused and short requests pass, it asks, and says why", async () => {
  for (const [answer, reason] of [
    [() => problem(502), "blocked"],
    [() => problem(407), "blocked"],
    [() => new Response("<p>proxy"), "blocked"],
    [() => problem(429), "limit"],
  ] as const) {
    const world = new World();
    world.noStreams = answer;
    world.add();
    const one = reading(world);
    await world.pass(5_000);
    assert.equal(one.now(), `polling ${reason === "limit" ? "short-poll" : "long-poll"} ${reason}`);
    assert.deepEqual(one.seqs, [1]);
  }
});

test("the stream is tried again meanwhile and taken up when a byte comes; nothing is lost or doubled", async () => {
  const world = new World();
  world.buffers = true;
  const one = reading(world);
  for (let times = 0; times < 20; times += 1) {
    world.add();
    await world.pass(1_000);
  }
  world.buffers = false;
  await world.pass(25_000);
  world.say(":\n");
  assert.equal(world.streams, 1);
  await world.pass(1_000);
  assert.equal(one.now(), "live");
  const asked = world.paths("poll").length;
  world.add();
  await world.pass(10_000);
  assert.deepEqual(one.seqs, upTo(21));
  assert.equal(world.paths("poll").length, asked);
  assert.equal(world.streams, 1);
});

test("a person can have the stream tried now", async () => {
  const world = new World();
  world.add();
  const one = reading(world, { down: "buffered" });
  await world.pass(1_000);
  assert.equal(one.now(), "polling long-poll buffered");
  assert.equal(world.paths("events").length, 0);
  one.follower.tryLive();
  await world.pass(0);
  world.add();
  await world.pass(0);
  assert.equal(one.now(), "live");
  assert.deepEqual(one.seqs, [1, 2]);
});

test("long polls that never come back become short ones", async () => {
  const world = new World();
  const one = reading(world, { down: "buffered" });
  world.down = true;
  await world.pass(10_000);
  world.down = false;
  await world.pass(20_000);
  assert.equal(one.now(), "polling short-poll buffered");
  assert.ok(world.paths("poll").at(-1)?.endsWith("after=0"));
});

test("after a sleep the dead stream is not waited for, and nothing need be compared", async () => {
  for (const slept of [25_000, 600_000]) {
    const world = new World();
    world.add();
    const one = reading(world);
    await world.pass(1_000);
    world.sleep(slept);
    world.die();
    world.add();
    await world.pass(0);
    assert.deepEqual(one.seqs, [1, 2]);
    assert.deepEqual(world.paths("poll"), []);
  }
});

test("a stream that died with its network is opened anew; one that falls silent again and again is given up", async () => {
  const world = new World();
  world.add();
  const one = reading(world);
  await world.pass(1_000);
  world.die();
  world.add();
  await world.pass(18_000);
  assert.deepEqual(one.seqs, [1, 2]);
  assert.equal(one.conditions.at(-1)?.transport, "stream");
  world.add();
  await world.pass(1_000);
  world.die();
  world.add();
  await world.pass(18_000);
  assert.equal(one.now(), "polling long-poll buffered");
  assert.deepEqual(one.seqs, upTo(4));
});

test("a server that takes streams and ends them at once is not asked without a pause", async () => {
  const world = new World();
  const one = reading(world);
  for (let times = 0; times < 600; times += 1) {
    world.say(":\n");
    await world.settle();
    world.cut(true);
    await world.pass(100);
  }
  assert.ok(world.asked.length < 20, `${world.asked.length} requests in a minute`);
  one.follower.leave();
});

test("below, no address is asked twice, and what has not changed is not sent again", async () => {
  const world = new World();
  world.add();
  const one = reading(world, { down: "tabs" });
  await world.pass(5_000);
  const turns = world.asked.map(({ turn }) => turn);
  assert.ok(turns.length > 4);
  assert.equal(new Set(turns).size, turns.length);
  assert.deepEqual(
    world.asked.map(({ headers }) => headers.get("If-None-Match")),
    turns.map((_, place) => (place === 0 ? null : '"1"')),
  );
  assert.deepEqual(one.seqs, [1]);
});

test("below, it asks as often as the server advises", async () => {
  const world = new World();
  world.retryAfter = "7";
  world.add();
  const one = reading(world, { down: "tabs" });
  await world.pass(22_000);
  assert.equal(one.conditions.at(-1)?.everyMs, 7_000);
  assert.equal(world.paths("poll").length, 4);
});

test("a reader below whose cursor is at the end learns that too", async () => {
  const world = new World();
  world.add("result");
  const one = reading(world, { after: 1, down: "buffered" });
  await world.pass(0);
  assert.deepEqual(one.ends, [{ how: "ended" }]);
});

test("a network that comes back is a new one: its streams are opened anew", async () => {
  const world = new World();
  world.add();
  const one = reading(world);
  await world.pass(1_000);
  one.follower.offline();
  world.die();
  world.add();
  await world.pass(1_000);
  one.follower.online();
  await world.pass(0);
  assert.deepEqual(one.seqs, [1, 2]);
  assert.deepEqual(world.paths("poll"), []);
});

test("a page that is looked at again goes on at once instead of waiting", async () => {
  const world = new World();
  world.add();
  const one = reading(world);
  await world.pass(2_000);
  world.down = true;
  world.cut();
  await world.pass(60_000);
  world.down = false;
  world.add();
  one.follower.wake();
  await world.pass(0);
  one.follower.wake();
  await world.pass(0);
  assert.deepEqual(one.seqs, [1, 2]);
});

test("without a network it says so, and goes on when there is one", async () => {
  const world = new World();
  world.add();
  const one = reading(world);
  await world.pass(2_000);
  one.follower.offline();
  assert.equal(one.now(), "offline");
  world.say(":\n"); // on its way already
  await world.pass(10);
  assert.equal(one.now(), "live");
  world.down = true;
  world.cut();
  await world.pass(30_000);
  assert.equal(one.now(), "offline");
  world.down = false;
  world.add();
  one.follower.online();
  await world.pass(1_000);
  assert.deepEqual(one.seqs, [1, 2]);
  assert.equal(one.now(), "live");
});

test("whatever the network does, each event comes once and in order, to the end", async () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const random = dice(seed);
    const world = new World(random);
    const one = reading(world);
    const answers = [() => problem(502), () => problem(429, { "Retry-After": "2" }), () => problem(503)];
    for (let turn = 0; turn < 60; turn += 1) {
      const choice = Math.floor(random() * 12);
      if (choice < 4) world.add();
      else if (choice === 4) world.cut(random() < 0.5);
      else if (choice === 5) world.down = !world.down;
      else if (choice === 6) world.buffers = !world.buffers;
      else if (choice === 7) world.refusals.push(answers[Math.floor(random() * 3)]?.() ?? problem(503));
      else if (choice === 8) world.noStreams = world.noStreams === null ? () => problem(502) : null;
      else if (choice === 9) one.follower.wake();
      else if (choice === 10) one.follower.tryLive();
      else world.sleep(20_000);
      if (world.down) world.cut();
      await world.pass(random() * 8_000);
    }
    world.down = false;
    world.add("cancelled");
    await world.pass(120_000);
    assert.deepEqual(one.seqs, upTo(world.frames.length), `seed ${seed}`);
    assert.deepEqual(one.ends, [{ how: "ended" }], `seed ${seed}`);
    assert.equal(world.streams, 0, `seed ${seed}`);
  }
});
