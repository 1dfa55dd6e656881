// What a run asks a person, and the buttons that answer it. The first answer counts; who was second is told so.

import { ask, attempt, el, post, say, set, tell } from "./page.js";
import { words } from "./fold.js";

export function paintQuestion(parts, run, drawn, address) {
  const open = run.end || run.stop ? undefined : run.questions.find((one) => !one.decision);
  parts.question.hidden = !open;
  if (drawn.question === (open?.seq ?? null)) return;
  drawn.question = open?.seq ?? null;
  if (!open) return;
  set(parts["question-heading"], `Waiting for ${words(open.to ?? "somebody")}`);
  set(parts["question-text"], open.question ?? "This question is put to somebody else.");
  tell(parts["question-problem"], "");
  parts["question-note"].value = "";
  say("urgent", "A question waits for an answer");
  const buttons = (open.choices ?? []).map((choice) => {
    const button = el("button", "", words(choice));
    button.type = "button";
    button.addEventListener("click", () => answer(parts, buttons, address, open.seq, choice, run.seq));
    return button;
  });
  const elsewhere = open.question ? "Answer it with the command runwire decide." : "";
  parts.choices.replaceChildren(...(buttons.length ? buttons : [el("p", "muted", elsewhere)]));
}

async function answer(parts, buttons, address, escalation, choice, seq) {
  if (buttons.some((one) => one.ariaDisabled === "true")) return;
  const busy = (yes) => buttons.forEach((one) => (one.ariaDisabled = String(yes)));
  busy(true);
  await attempt(parts["question-problem"], async () => {
    // The chain hash of what this page was showing when the button was pressed, not of what came since.
    const { seen } = await ask(`${address}?at=${seq}`);
    const note = parts["question-note"].value.trim();
    await post(`${address}/decisions`, { escalation, choice, seen, ...(note && { note }) }, { keepalive: true })
      .finally(() => busy(false));
  });
  busy(false);
}
