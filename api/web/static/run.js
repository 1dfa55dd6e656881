// One run, read from the beginning of its log and on, painted at most once a frame.

import { fold, inLine, newRun, words } from "./fold.js";
import { ask, attempt, el, headers, left, post, problemOf, say, set, show, tell } from "./page.js";
import { paintQuestion } from "./question.js";
import { follow } from "./stream.js";

const PLACE_MS = 2000; // a place in line moves without an event, so it is asked for
const clock = (at) => new Date(at).toLocaleTimeString();
const LAGGING = "Pieces of draft text were joined here to keep up. Results are complete.";
const ENDINGS = {
  result: "Result validated", cancelled: "Stopped, partial result kept", error: "Run failed, partial result kept",
};
const CHIPS = { live: "Live", ended: "Ended", refused: "Closed" };

export function runView(id) {
  const parts = show("run"), run = newRun(), mine = left(), address = `runs/${id}`;
  const drawn = { pieces: 0, activity: 0, cuts: 0, findings: [], steps: [], sections: new Map(), end: null, question: null };
  let due = false, asked = false;
  document.title = "Run – Runwire";

  const paint = () => {
    due = false;
    if (mine.aborted) return;
    paintHead(parts, run, asked);
    paintQuestion(parts, run, drawn, address);
    paintSteps(parts, run, drawn);
    paintDraft(parts, run, drawn);
    paintFindings(parts, run, drawn);
    for (const { at, text } of run.activity.slice(drawn.activity)) {
      parts.activity.append(el("li", "", el("time", "muted", clock(at)), ` ${text}`));
    }
    drawn.activity = run.activity.length;
    paintResult(parts, run, drawn);
  };
  const soon = () => due || (due = Boolean(requestAnimationFrame(paint)));

  parts.stop.addEventListener("submit", (event) => {
    event.preventDefault();
    if (asked || run.stop || run.end) return; // one press, one request
    asked = true;
    soon();
    const body = { reason: parts.stop.reason.value };
    attempt(parts.problem, () => post(`${address}/cancel`, body, { keepalive: true }).catch((fault) => {
      asked = false; // it did not arrive: the button works again
      soon();
      throw fault;
    }));
  });

  follow({
    path: `v1/${address}/events`,
    headers: headers(),
    signal: mine,
    onFrame: (name, frame) => {
      if (name === "lagging") run.activity.push({ at: Date.now(), text: LAGGING });
      else fold(run, frame);
      soon();
    },
    onState: async (state, answer) => {
      parts.link.dataset.state = state;
      set(parts.link, CHIPS[state] ?? `Reconnecting. Shown up to event ${run.seq}.`);
      if (state !== "refused") return;
      if (answer.status === 401) return window.dispatchEvent(new Event("signed-out"));
      set(parts.heading, "This run cannot be shown");
      const unknown = "There is no such run, or it is not yours to see.";
      tell(parts.problem, answer.status === 404 ? unknown : (await problemOf(answer)).message);
    },
  });
  const place = async () => {
    if (mine.aborted || run.seq > 1) return;
    if (run.seq) run.queue = await ask(address).then((state) => state.queue, () => null);
    soon();
    setTimeout(place, PLACE_MS);
  };
  setTimeout(place, PLACE_MS / 4);
  paint();
}

function paintHead(parts, run, asked) {
  const stopping = Boolean(asked || run.stop) && !run.end;
  const step = run.plan[run.index - 1];
  const place = step ? `Step ${run.index} of ${run.plan.length}, ${step.label}` : "";
  const status = stopping ? "Stopping…" : run.status === "queued" ? inLine(run.queue) : words(run.status);
  set(parts.status, run.seq ? status : "");
  parts.status.className = `word ${stopping ? "stopping" : run.status}`;
  set(parts.step, place + (run.detail && !run.end ? `: ${run.detail}` : ""));
  parts.stop.hidden = Boolean(run.end) || !run.seq;
  parts.stop.reason.disabled = stopping;
  parts["stop-button"].ariaDisabled = String(stopping);
  set(parts["stop-button"], stopping ? "Stopping…" : "Stop");
  if (!run.seq) return;
  set(parts.heading, run.title || words(run.workflow));
  document.title = `${status} · ${run.title || words(run.workflow)} – Runwire`;
  if (!run.end) say("polite", stopping ? "Stopping" : place);
}

function paintSteps(parts, run, drawn) {
  run.plan.forEach((step, place) => {
    if (!drawn.steps[place]) {
      drawn.steps[place] = { word: el("span", "unseen"), time: el("span", "muted") };
      const row = el("li", "", el("span", "", step.label), drawn.steps[place].word, drawn.steps[place].time);
      drawn.steps[place].row = parts.steps.appendChild(row);
    }
    const { row, word, time } = drawn.steps[place];
    const number = place + 1;
    const done = number < run.index || run.end?.type === "result";
    const current = number === run.index && !run.end;
    row.className = done ? "done" : current ? "current" : number === run.index ? "stopped" : "next";
    row.ariaCurrent = current ? "step" : null;
    set(word, done ? " done " : current ? " now " : number === run.index ? " stopped here " : " to come ");
    const seconds = (new Date(step.until) - new Date(step.since)) / 1000;
    const took = seconds >= 0 ? `${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : "";
    set(time, current ? "now" : done ? took : "");
  });
}

function paintDraft(parts, run, drawn) {
  if (drawn.cuts !== run.cuts) {
    // Text of a replaced attempt leaves the page in this same frame: not hidden, gone.
    Object.assign(drawn, { cuts: run.cuts, pieces: 0, sections: new Map() });
    parts["draft-text"].replaceChildren();
  }
  for (const { section, text } of run.pieces.slice(drawn.pieces)) {
    if (!drawn.sections.has(section)) {
      drawn.sections.set(section, el("p", "prose"));
      parts["draft-text"].append(el("h3", "", words(section)), drawn.sections.get(section));
    }
    drawn.sections.get(section).append(text);
  }
  drawn.pieces = run.pieces.length;
  parts["draft-empty"].hidden = run.pieces.length > 0;
}

function paintFindings(parts, run, drawn) {
  const kept = new Set(run.findings);
  for (const { found, row } of drawn.findings) if (!kept.has(found)) row.remove();
  drawn.findings = run.findings.map((found) => {
    const known = drawn.findings.find((one) => one.found === found);
    if (known) return known;
    const { title, severity, ...more } = found.value;
    const head = el("p", "row", el("strong", "", String(title ?? words(found.item))));
    if (severity) head.append(el("span", `word ${severity}`, words(severity)));
    return { found, row: parts.findings.appendChild(el("li", "", head, shown(more))) };
  });
  parts["findings-empty"].hidden = run.findings.length > 0;
  set(parts["findings-count"], run.findings.length ? String(run.findings.length) : "");
}

function paintResult(parts, run, drawn) {
  const checks = run.validation?.checks ?? [];
  const passed = checks.filter((one) => one.passed).length;
  const count = checks.length ? ` ${passed} of ${checks.length} checks passed.` : "";
  if (!run.end) {
    const failed = run.validation?.passed === false ? "Not validated." : "Locked until every check has passed.";
    set(parts["result-note"], failed + count);
  }
  if (drawn.validation !== run.validation) {
    drawn.validation = run.validation;
    parts.checks.replaceChildren(...checks.map(({ name, passed: ok, detail }) => {
      const said = `${ok ? "Passed" : "Failed"}: ${words(name)}${detail ? ` – ${detail}` : ""}`;
      return el("li", ok ? "ok" : "bad", said);
    }));
  }
  if (!run.end || drawn.end) return;
  drawn.end = run.end;
  const { type, at, seq, final, output, partial, missing, reason, message, retryable } = run.end;
  const complete = type === "result" && final; // nothing else ever opens this box
  parts.result.className = `result ${complete ? "open" : "partial"}`;
  parts.result.dataset.final = String(complete);
  set(parts["result-heading"], complete ? "Validated result" : "Partial result – not validated");
  const named = (name) => run.plan.find((step) => step.state === name)?.label ?? words(name);
  const lacks = missing?.length ? ` Missing: ${missing.map(named).join(", ")}.` : "";
  set(parts["result-note"], {
    result: `Validated ${clock(at)}, event ${seq}.${count}`,
    cancelled: `Stopped ${clock(at)}: ${reason}.${lacks}`,
    error: `Failed ${clock(at)}: ${message}${retryable ? " A new run may help." : ""}`,
  }[type]);
  const findings = run.findings.length ? `${run.findings.length} kept, see below` : partial?.findings;
  parts.output.replaceChildren(shown(complete ? output : { ...partial?.sections, findings }));
  // The draft is never promoted: it shuts, unless somebody is reading in it.
  const selection = getSelection();
  parts.draft.open = !selection.isCollapsed && parts.draft.contains(selection.anchorNode);
  set(parts["draft-note"], "kept as it was written");
  say("urgent", ENDINGS[type]);
}

// Any value that a workflow may return, as text in paragraphs, lists and terms.
function shown(value) {
  if (Array.isArray(value)) return el("ul", "", ...value.map((one) => el("li", "", shown(one))));
  if (value === null || typeof value !== "object") return el("p", "prose", String(value ?? "–"));
  const named = Object.entries(value).filter(([, one]) => one !== undefined && one?.length !== 0);
  return el("dl", "", ...named.flatMap(([name, one]) => [el("dt", "", words(name)), el("dd", "", shown(one))]));
}
