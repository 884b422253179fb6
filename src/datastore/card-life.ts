// How long a card lasts under what the datastore writes, from what it has written so far. An estimate on the safe side of
// a small card: what is written is spread over all blocks, each flush rewrites at least one block group of the card.
// Pure; docs/datastore.md says how to use it for another card.
export interface Wear {
  readonly writtenBytes: number;
  readonly flushes: number;
  readonly ms: number;
}

/** A card of 16 GiB whose cells take 1000 writes, the least that makers of TLC cards promise. */
const enduranceBytes = 16 * 1024 ** 3 * 1000;
/** What a flush costs the card at least: it programs whole pages and copies the rest of a group. */
const flushBytes = 64 * 1024;
const yearMs = 365.25 * 24 * 3600 * 1000;
/** Beyond it something else ends the card. */
const maxYears = 100;

export function cardLifeYears({ writtenBytes, flushes, ms }: Wear): number {
  const wornBytes = Math.max(writtenBytes, flushes * flushBytes);
  if (wornBytes === 0 || ms <= 0) return maxYears;
  return Math.min(maxYears, enduranceBytes / ((wornBytes / ms) * yearMs));
}
