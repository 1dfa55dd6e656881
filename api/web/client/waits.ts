// How long to wait before the next try: what the server asks for, else longer with each failure, never all at once.

const WAITS_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000] as const;
const LONGEST_ASKED_MS = 120_000;
const JITTER = 0.3;

export function backoffMs(failures: number, random: () => number): number {
  const wait = WAITS_MS[Math.min(Math.max(failures - 1, 0), WAITS_MS.length - 1)] ?? 0;
  return Math.round(wait * (1 - JITTER + 2 * JITTER * random()));
}

// `Retry-After`: seconds or a date; null when there is none that can be read.
export function retryAfterMs(value: string | null, now: number): number | null {
  const text = value?.trim() ?? "";
  if (/^\d+(\.\d+)?$/.test(text)) return Math.min(Number(text) * 1_000, LONGEST_ASKED_MS);
  const at = text === "" ? Number.NaN : Date.parse(text);
  return Number.isNaN(at) ? null : Math.min(Math.max(at - now, 0), LONGEST_ASKED_MS);
}
