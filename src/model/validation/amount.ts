// Quantities as numbers, for comparing and for telling right from wrong. Doubles are exact far beyond what a request and
// its limit can differ by; exact arithmetic is quantity.ts's business.

const factors: Readonly<Record<string, number>> = {
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

/** Undefined when it is no quantity. */
export function parseAmount(quantity: string | number | undefined): number | undefined {
  const match = /^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))([a-zA-Z]*)([+-]?[0-9]*)$/.exec(String(quantity ?? ""));
  if (!match) return undefined;
  const [, digits = "", suffix = "", exponent = ""] = match;
  if (exponent !== "") return /^[eE]$/.test(suffix) ? Number(`${digits}e${exponent}`) : undefined;
  const factor = Object.hasOwn(factors, suffix) ? factors[suffix] : undefined;
  return factor === undefined ? undefined : Number(digits) * factor;
}
