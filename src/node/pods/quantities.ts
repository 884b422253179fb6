// Quantities as plain numbers, which is all the node needs: whole units (bytes, pids) and thousandths (CPU).
// Exact to 2^53, beyond any memory or disk this runs on.
import { isQuantity } from "#model/quantity.ts";

const suffixes: Readonly<Record<string, number>> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

function parse(text: string | number | undefined): number {
  if (text === undefined) return 0;
  const match = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?$/.exec(String(text));
  return match ? Number(match[1]) * (suffixes[match[2] ?? ""] ?? 1) : 0;
}

/** Rounded up to whole units; 0 for nothing or nonsense (validation has refused that before). */
export const wholeOf = (text: string | number | undefined): number => Math.ceil(round(parse(text)));
/** Rounded up to thousandths. */
export const milliOf = (text: string | number | undefined): number => Math.ceil(round(parse(text) * 1000));

/** What somebody wrote and no validation has seen; throws an Error where it is no amount. */
export function checkedQuantity(text: string): string {
  if (isQuantity(text) && parse(text) >= 0) return text;
  throw new Error(`${JSON.stringify(text)} is not a quantity such as 500m or 100Mi`);
}

/** Takes off the dust of binary fractions: 0.1 × 1000 × 3 must not become 301. */
const round = (value: number): number => Number(value.toPrecision(15));
