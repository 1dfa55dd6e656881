import assert from "node:assert/strict";
import { test } from "node:test";
import { Credential } from "../client/credential.ts";
import { reading } from "./reading.ts";
import { KEY, problem, World } from "./world.ts";

test("a refused key is asked for once; another one goes on from the same event", async () => {
  const world = new World();
  world.add();
  const refused: (string | null)[] = [];
  const one = reading(world, {
    give: (old) => {
      refused.push(old);
      return old === null ? KEY : "rw_new";
    },
  });
  await world.pass(2_000);
  world.keys = new Set(["rw_new"]);
  world.cut(true);
  world.add();
  await world.pass(0);
  assert.deepEqual(one.seqs, [1, 2]);
  assert.deepEqual(refused, [null, KEY]);
  assert.deepEqual(one.states(), ["connecting", "live", "reconnecting", "signed-out", "reconnecting", "live"]);
});

test("one 401 that passes is survived with the same key; one that stays ends it after a few tries", async () => {
  const world = new World();
  world.add();
  const one = reading(world);
  await world.pass(2_000);
  world.refusals = [problem(401)];
  world.cut();
  world.add();
  await world.pass(1_000);
  assert.deepEqual(one.seqs, [1, 2]);
  world.keys.clear();
  world.cut();
  await world.pass(60_000);
  assert.deepEqual(one.ends, [{ how: "refused", status: 401, problem: null }]);
  assert.ok(world.asked.length < 9);
});

test("while a person signs in nothing is asked, and leaving ends that too", async () => {
  const world = new World();
  world.keys.clear();
  let sign: (key: string) => void = () => undefined;
  const one = reading(world, {
    give: (old) => (old === null ? KEY : new Promise((resolve) => (sign = resolve))),
  });
  await world.pass(3_600_000);
  assert.equal(world.asked.length, 1);
  assert.equal(one.now(), "signed-out");
  world.keys.add("rw_new");
  world.add();
  sign("rw_new");
  await world.pass(0);
  assert.deepEqual(one.seqs, [1]);
  one.follower.leave();
  assert.deepEqual(one.ends, [{ how: "left" }]);
  assert.equal(world.streams, 0);
});

test("as many new keys as it takes are tried", async () => {
  const world = new World();
  world.keys = new Set(["rw_7"]);
  world.add();
  let keys = 0;
  const one = reading(world, { give: () => `rw_${++keys}` });
  await world.pass(0);
  await world.pass(0);
  assert.deepEqual(one.seqs, [1]);
});

test("whoever is refused meanwhile waits for the same new key", async () => {
  const asked: (string | null)[] = [];
  const credential = new Credential(async (refused) => {
    asked.push(refused);
    return refused === null ? "old" : "new";
  });
  assert.equal(await credential.key(), "old");
  const both = Promise.all([credential.instead("old"), credential.instead("old")]);
  assert.deepEqual(await both, ["new", "new"]);
  assert.equal(await credential.instead("old"), "new");
  assert.deepEqual(asked, [null, "old"]);
});
