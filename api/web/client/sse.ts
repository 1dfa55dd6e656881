// Server-sent events out of the text of a stream, in whatever pieces the network brings it. Pure.

export interface SseEvent {
  readonly id: string; // empty when the event has none of its own
  readonly name: string;
  readonly data: string;
}

export class NotEvents extends Error {}

const LONGEST_LINE = 8 * 2 ** 20;

export class SseParser {
  #rest = "";
  #begun = false;
  #afterReturn = false;
  #id = "";
  #name = "";
  #data: string[] = [];

  // The events that became whole with this piece. What is not followed by a blank line was cut off and is left out.
  push(piece: string): SseEvent[] {
    const events: SseEvent[] = [];
    let text = this.#rest + piece;
    let at = 0;
    let from = this.#rest.length; // no line ends in what was looked through before
    if (!this.#begun && text !== "") {
      this.#begun = true;
      if (text.startsWith("\uFEFF")) text = text.slice(1);
    }
    for (let end = lineEnd(text, from); end >= 0; end = lineEnd(text, from)) {
      const half = this.#afterReturn && end === at && text[end] === "\n"; // the second half of \r\n
      this.#afterReturn = text[end] === "\r";
      if (!half) this.#line(text.slice(at, end), events);
      at = from = end + 1;
    }
    this.#rest = text.slice(at);
    if (this.#rest !== "") this.#afterReturn = false;
    if (this.#rest.length > LONGEST_LINE) throw new NotEvents("a line of this stream has no end");
    return events;
  }

  #line(line: string, events: SseEvent[]): void {
    if (line === "") {
      if (this.#data.length > 0) {
        events.push({ id: this.#id, name: this.#name || "message", data: this.#data.join("\n") });
      }
      this.#id = this.#name = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#name = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
  }
}

function lineEnd(text: string, from: number): number {
  const newline = text.indexOf("\n", from);
  const carriage = text.indexOf("\r", from);
  if (newline < 0 || carriage < 0) return Math.max(newline, carriage);
  return Math.min(newline, carriage);
}
