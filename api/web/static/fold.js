// What a run's events add up to. Pure: a refresh, a resume and a replay of the same events show the same page.

export const TERMINAL = new Set(["result", "cancelled", "error"]);
const NEXT_STATUS = {
  started: "running", escalation: "waiting", decision: "running", cancel_requested: "stopping", result: "completed", cancelled: "cancelled", error: "failed",
};

export const newRun = () => ({
  seq: 0, status: "queued", title: "", workflow: "", plan: [], index: 0, detail: "", pieces: [], cuts: 0,
  findings: [], questions: [], activity: [], validation: null, stop: null, end: null,
});

// Folds one frame into the run and returns it. A frame that was seen before changes nothing.
export function fold(run, frame) {
  const { seq, type, at, data } = frame;
  if (!(seq > run.seq)) return run;
  run.seq = seq;
  if (!(["stopping", "waiting"].includes(run.status) && type === "started")) run.status = NEXT_STATUS[type] ?? run.status;
  const note = (text) => run.activity.push({ seq, at, text });
  switch (type) {
    case "accepted":
      run.title = data.title ?? "";
      run.workflow = data.workflow ?? "";
      if (data.on_disconnect) note(`The run stops when nobody watches for ${data.on_disconnect.cancel_after_s} s.`);
      run.plan = (data.milestones ?? []).map((step) => ({ ...step }));
      break;
    case "started":
      if (data.attempt > 1) note("Another worker took over where the last one stopped.");
      else note(data.resumed_from ? "A worker took the run up again." : "A worker started.");
      break;
    case "progress":
      if (run.plan[run.index - 1] && run.index !== data.index) run.plan[run.index - 1].until ??= at;
      run.index = data.index;
      if (!run.plan[run.index - 1]) run.plan[run.index - 1] = { state: data.state, label: data.label };
      run.plan[run.index - 1].since ??= at;
      run.detail = data.detail ?? (data.of ? `${data.done ?? 0} of ${data.of}` : "");
      break;
    case "token":
      if (data.shape === "json") break; // half a JSON value is nothing to read
      run.pieces.push({ seq, section: data.section ?? "", text: data.text ?? "" });
      break;
    case "finding": {
      const found = { seq, item: data.item, value: data.value ?? {} };
      const known = run.findings.findIndex((one) => one.item === data.item);
      if (known < 0) run.findings.push(found);
      else run.findings[known] = found;
      break;
    }
    case "tool_call": note(`Calling ${words(data.tool)}.`); break;
    case "tool_result": note(`${words(data.tool)}: ${data.summary ?? data.status ?? "answered"}`); break;
    case "retry": {
      const dead = (one) => (data.superseded ?? []).some(([first, last]) => first <= one.seq && one.seq <= last);
      run.pieces = run.pieces.filter((one) => !dead(one));
      run.findings = run.findings.filter((one) => !dead(one));
      run.cuts += 1;
      const wait = data.wait_s ? ` in ${Math.ceil(data.wait_s)} s` : "";
      const next = data.next_attempt ? `Attempt ${data.next_attempt} follows${wait}.` : "No further attempt follows.";
      const why = String(data.message ?? words(data.reason)).replace(/\.$/, "");
      const fate = (data.superseded ?? []).length ? "was replaced" : "broke off";
      note(`Attempt ${data.attempt ?? frame.attempt} ${fate}: ${why}. ${next}`);
      break;
    }
    case "validation":
      run.validation = { passed: data.passed, checks: data.checks ?? [] };
      break;
    case "escalation":
      run.questions.push({ seq, ...data });
      note(`Asked ${data.to ?? "somebody"}: ${data.question ?? "a question"}`);
      break;
    case "decision": {
      const asked = run.questions.find((one) => one.seq === data.escalation);
      if (asked) asked.decision = { seq, ...data };
      const said = data.choice ?? (data.answer === undefined ? "" : JSON.stringify(data.answer));
      note(`${data.because === "wait_over" ? "Nobody answered in time" : "Answered"}${said && `: ${said}`}.`);
      break;
    }
    case "cancel_requested":
      run.stop = { at, reason: data.reason };
      note(`Stop was asked for: ${data.reason || "no reason given"}.`);
      break;
    case "cancel_observed": note("The worker saw the stop and closed the model's connection."); break;
    case "result": case "cancelled": case "error":
      if (run.plan[run.index - 1]) run.plan[run.index - 1].until ??= at;
      run.end = { seq, at, type, final: frame.final === true, ...data };
      break;
  }
  return run;
}

// "Queued, 3rd in line": where a run stands that has not begun.
export function inLine(queue) {
  if (queue?.reason === "no_worker") return "Queued, no worker can carry it";
  if (!queue?.position) return "Queued";
  const n = queue.position, suffix = [11, 12, 13].includes(n % 100) ? "th" : ["th", "st", "nd", "rd"][n % 10] ?? "th";
  return `Queued, ${queue.exact ? "" : "at least "}${n}${suffix} in line`;
}

// "risk_level" is for programs; people read "Risk level".
export function words(name) {
  const text = String(name ?? "").replaceAll("_", " ").trim();
  return text.charAt(0).toUpperCase() + text.slice(1);
}
