import assert from "node:assert/strict";
import { test } from "node:test";
import { type SseEvent, SseParser } from "../client/sse.ts";
import { dice } from "./world.ts";

const STREAM =
  '\uFEFFid: 1\nretry: 1000\nevent: token\ndata: {"a":1}\n\n:\nid: 2\nevent: token\ndata: one\ndata:two\ndata\n\n' +
  "event: lagging\r\ndata: é\r\n\r\n:\r\nid: bad\0id\rdata: three\r\revent: nothing\n\nid: 9\ndata: cut off\n";
const EVENTS: SseEvent[] = [
  { id: "1", name: "token", data: '{"a":1}' },
  { id: "2", name: "token", data: "one\ntwo\n" },
  { id: "", name: "lagging", data: "é" },
  { id: "", name: "message", data: "three" },
];

test("a stream gives its whole events, however the network cuts it", () => {
  const random = dice(1);
  for (let round = 0; round < 500; round += 1) {
    const parser = new SseParser();
    const events: SseEvent[] = [];
    for (let at = 0; at < STREAM.length; ) {
      const length = round === 0 ? 1 : Math.floor(random() * 30);
      events.push(...parser.push(STREAM.slice(at, at + length)));
      at += length;
    }
    assert.deepEqual(events, EVENTS);
  }
});

test("keep-alives and blank lines make no events", () => {
  assert.deepEqual(new SseParser().push(":\n:\n: ping\n\n\n\n:\n"), []);
});

test("a line without an end is no stream of events", () => {
  const parser = new SseParser();
  const piece = "x".repeat(1 << 20);
  assert.throws(() => {
    for (let times = 0; times < 10; times += 1) parser.push(piece);
  }, /has no end/);
});
