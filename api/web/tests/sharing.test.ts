import assert from "node:assert/strict";
import { test } from "node:test";
import { Hub } from "../client/hub.ts";
import type { ToHub, ToTab } from "../client/messages.ts";
import { upTo } from "./reading.ts";
import { KEY, RUN, World } from "./world.ts";

interface Tab {
  readonly say: (message: ToHub) => void;
  readonly heard: ToTab[];
  readonly seqs: () => (number | undefined)[];
  readonly ends: () => ToTab[];
  readonly follow: (after?: number, key?: string) => void;
}

function tab(hub: Hub): Tab {
  const heard: ToTab[] = [];
  const say = hub.join({ say: (message) => void heard.push(message) });
  return {
    say,
    heard,
    seqs: () => heard.flatMap((one) => (one.say === "frames" ? one.frames.map(({ seq }) => seq) : [])),
    ends: () => heard.filter((one) => one.say === "end"),
    follow: (after = 0, key = KEY) => say({ do: "follow", id: 1, url: "http://runwire.test", runId: RUN, after, key }),
  };
}

test("seven tabs share one stream, and each has every event once", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  const tabs = upTo(7).map(() => tab(hub));
  for (const each of tabs) {
    each.follow();
    world.add();
    await world.pass(10);
  }
  assert.equal(world.streams, 1);
  world.add("result");
  await world.pass(10);
  for (const each of tabs) {
    assert.deepEqual(each.seqs(), upTo(8));
    assert.equal(each.ends().length, 1);
  }
  assert.equal(world.asked.length, 1);
});

test("the stream lives on when the tab that began it closes, and ends with the last tab", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  const [first, second] = [tab(hub), tab(hub)];
  first.follow();
  second.follow();
  await world.pass(10);
  first.say({ do: "leave", id: 1 });
  world.add();
  await world.pass(10);
  assert.deepEqual(second.seqs(), [1]);
  second.say({ do: "leave", id: 1 });
  await world.pass(10);
  assert.equal(world.streams, 0);
  assert.equal(world.asked.length, 1);
});

test("a tab that its browser says is gone is let go of at once", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  const port = { say: () => undefined };
  hub.join(port)({ do: "follow", id: 1, url: "http://runwire.test", runId: RUN, after: 0, key: KEY });
  await world.pass(10);
  assert.equal(world.streams, 1);
  hub.part(port);
  await world.pass(10);
  assert.equal(world.streams, 0);
});

test("a late tab is given what is kept, from its own cursor", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  tab(hub).follow();
  for (let times = 0; times < 10; times += 1) world.add();
  await world.pass(10);
  const late = tab(hub);
  late.follow(6);
  await world.pass(10);
  assert.deepEqual(late.seqs(), upTo(10, 7));
  assert.equal(world.asked.length, 1);
});

test("a late tab reads what is kept no longer by short requests, and joins the others there", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  const first = tab(hub);
  first.follow(5);
  for (let times = 0; times < 12; times += 1) world.add();
  await world.pass(10);
  const late = tab(hub);
  late.follow(0);
  await world.pass(0);
  world.add();
  await world.pass(5_000);
  world.add("error");
  await world.pass(5_000);
  assert.deepEqual(late.seqs(), upTo(14));
  assert.deepEqual(first.seqs(), upTo(14, 6));
  assert.equal(late.ends().length, 1);
  assert.equal(world.paths("events").length, 1);
});

test("what is kept is bounded, and nobody misses anything", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  tab(hub).follow();
  for (let times = 0; times < 2_600; times += 1) world.add();
  await world.pass(10);
  const late = tab(hub);
  late.follow(900);
  await world.pass(600_000);
  assert.deepEqual(late.seqs(), upTo(2_600, 901));
  assert.ok(world.paths("poll?after=900").length > 0);
});

test("another key is another stream: it may be shown other things", async () => {
  const world = new World();
  world.keys.add("rw_other");
  const hub = new Hub(world.around);
  tab(hub).follow();
  tab(hub).follow(0, "rw_other");
  await world.pass(10);
  assert.equal(world.streams, 2);
});

test("tabs are asked for another key, and the first one answers for all", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  const [first, second] = [tab(hub), tab(hub)];
  first.follow();
  second.follow();
  await world.pass(2_000);
  world.keys = new Set(["rw_new"]);
  world.cut();
  await world.pass(1_000);
  for (const each of [first, second]) assert.ok(each.heard.some((one) => one.say === "key" && one.refused === KEY));
  first.say({ do: "key", id: 1, key: null });
  second.say({ do: "key", id: 1, key: "rw_new" });
  world.add();
  await world.pass(10);
  assert.deepEqual([first.seqs(), second.seqs()], [[1], [1]]);
  const third = tab(hub);
  third.follow(0, "rw_new");
  await world.pass(10);
  assert.equal(world.streams, 1);
});

test("a tab that died is let go of; one that only slept follows again from its cursor", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  const one = tab(hub);
  one.follow();
  await world.pass(0);
  for (let times = 0; times < 12; times += 1) {
    world.say(":\n");
    assert.equal(world.streams, 1);
    await world.pass(14_000);
    hub.sweep();
  }
  assert.equal(world.streams, 1);
  await world.pass(13_000);
  hub.sweep();
  await world.pass(10);
  assert.equal(world.streams, 0);
  one.say({ do: "here", ids: [1] });
  assert.deepEqual(one.heard.slice(-2), [{ say: "here" }, { say: "again", id: 1 }]);
  world.add();
  one.follow();
  await world.pass(10);
  assert.deepEqual(one.seqs(), [1]);
});

test("gathered text reaches those who have not read what it stands for, in its place", async () => {
  const world = new World();
  const hub = new Hub(world.around);
  const [one, late] = [tab(hub), tab(hub)];
  one.follow();
  world.add();
  await world.pass(10);
  world.say('event: lagging\ndata: {"type":"lagging","data":{"first":2,"last":4,"drafts":[]}}\n\n');
  world.frames.push(...upTo(4, 2).map((seq) => ({ seq, type: "token" })));
  world.skip(4);
  world.add();
  await world.pass(10);
  late.follow(3);
  await world.pass(10);
  const heard = [1, undefined, 5];
  assert.deepEqual(one.seqs(), heard);
  assert.deepEqual(late.seqs(), heard.slice(1));
});
