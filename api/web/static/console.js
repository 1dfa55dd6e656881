// The console: asks for a key once, starts reviews, lists runs, and opens one run at #/runs/{id}.

import { inLine, words } from "./fold.js";
import { ask, attempt, el, keep, key, left, post, set, show, tell } from "./page.js";
import { runView } from "./run.js";

function signIn(problem) {
  keep("");
  const parts = show("sign-in");
  document.title = "Runwire";
  tell(parts.problem, problem);
  parts.form.key.focus();
  parts.form.addEventListener("submit", (event) => {
    event.preventDefault();
    keep(parts.form.key.value.trim());
    route();
  });
}

function startView() {
  const parts = show("start");
  document.title = "Runwire";
  let next = null;
  const list = (before) => attempt(parts["list-problem"], async () => {
    const answer = await ask(`runs${before ? `?before=${encodeURIComponent(before)}` : ""}`);
    if (!before) parts.runs.replaceChildren();
    for (const run of answer.runs) {
      const link = el("a", "", run.title || words(run.workflow));
      link.href = `#/runs/${run.id}`;
      const when = el("span", "muted", `${words(run.workflow)}, ${new Date(run.created_at).toLocaleString()}`);
      parts.runs.append(el("li", "", link, el("span", `word ${run.status}`, run.queue ? inLine(run.queue) : words(run.status)), when));
    }
    tell(parts.none, parts.runs.children.length ? "" : "No runs yet. Start one with the form.");
    next = answer.next ?? null;
    parts.older.hidden = !next;
  });
  parts.refresh.addEventListener("click", () => list());
  parts.older.addEventListener("click", () => list(next));
  list();
  startForm(parts);
}

function startForm(parts) {
  const form = parts.form, button = parts.submit, mine = left();
  let samples = [], once = "";
  attempt(parts.problem, async () => {
    const { workflows } = await ask("workflows");
    const review = workflows.find((one) => one.name === "contract_review");
    if (!review) throw new Error("This server offers no contract review to your key.");
    set(parts.heading, review.title || "Contract review");
    set(parts.plan, (review.milestones ?? []).map((step) => step.label).join(" · "));
    samples = review.samples ?? [];
    form.sample.append(...samples.map((one, place) => new Option(one.input.title ?? words(one.name), place)));
    parts.samples.hidden = !samples.length;
  });
  form.sample.addEventListener("change", () => {
    const input = samples[form.sample.value]?.input;
    form.elements.title.value = input?.title ?? "";
    form.elements.text.value = input?.text ?? "";
  });
  form.addEventListener("input", () => (once = ""));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true";
    // The same form sent again, because the answer was lost, starts one run.
    once ||= crypto.getRandomValues(new Uint8Array(16)).join("-");
    const own = { title: form.elements.title.value, text: form.elements.text.value };
    const input = { ...samples[form.sample.value]?.input, ...own };
    await attempt(parts.problem, async () => {
      const body = { workflow: "contract_review", input };
      const run = await post("runs", body, { headers: { "Idempotency-Key": once } });
      if (!mine.aborted) location.hash = `#/runs/${run.id}`;
    });
    button.ariaDisabled = "false";
  });
}

function route() {
  const [, id] = location.hash.match(/^#\/runs\/([\w-]+)/) ?? [];
  if (!key()) signIn("");
  else if (id) runView(id);
  else startView();
}

window.addEventListener("hashchange", route);
window.addEventListener("signed-out", () => signIn("This key was not accepted. Nothing was lost."));
document.getElementById("sign-out").addEventListener("click", () => signIn(""));
route();
