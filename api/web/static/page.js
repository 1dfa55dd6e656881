// What every view stands on: the page's parts, and the way to the API. Text from outside only ever becomes a text node.

const KEY = "runwire.key";
const main = document.getElementById("main");
let leave = new AbortController(); // aborted when the view that it belongs to is left

export const key = () => sessionStorage.getItem(KEY);
export const keep = (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY));
export const headers = () => ({ Authorization: `Bearer ${key()}` });
export const left = () => leave.signal;

// Puts a template on the page and gives back its named parts.
export function show(template) {
  leave.abort();
  leave = new AbortController();
  main.replaceChildren(document.getElementById(template).content.cloneNode(true));
  document.getElementById("sign-out").hidden = template === "sign-in";
  say("polite", "");
  say("urgent", "");
  main.querySelector("h1").focus({ preventScroll: true });
  return Object.fromEntries([...main.querySelectorAll("[data-part]")].map((node) => [node.dataset.part, node]));
}

export function el(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function tell(node, text) {
  set(node, text);
  node.hidden = !text;
}

// For screen readers: only boundaries are spoken, never text, clocks or percentages.
export const say = (region, text) => set(document.getElementById(region), text);

export async function problemOf(response) {
  const problem = await response.json().catch(() => ({}));
  const places = (problem.errors ?? []).map((one) => `${one.pointer ?? ""} ${one.detail ?? ""}`.trim());
  return new Error([problem.detail ?? problem.title ?? `The server answered ${response.status}.`, ...places].join(" "));
}

export async function ask(path, options = {}) {
  const call = { cache: "no-store", signal: left(), ...options, headers: { ...headers(), ...options.headers } };
  const response = await fetch(`v1/${path}`, call).catch((fault) => {
    throw fault.name === "AbortError" ? fault : new Error("The server did not answer. Nothing was lost; try again.");
  });
  if (response.status === 401) window.dispatchEvent(new Event("signed-out"));
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

// What was sent is sent: leaving the view does not take it back.
export function post(path, body, options = {}) {
  const all = { "Content-Type": "application/json", ...options.headers };
  return ask(path, { method: "POST", body: JSON.stringify(body), signal: null, ...options, headers: all });
}

// Says what went wrong where the person is looking; a view that was left needs no message.
export const attempt = (place, action) =>
  action().then(() => tell(place, ""), (fault) => fault.name === "AbortError" || tell(place, fault.message));
