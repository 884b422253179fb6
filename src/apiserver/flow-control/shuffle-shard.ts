// Which queues a flow may use: a hand dealt from its hash, so that two flows seldom share all of theirs, and one that
// floods its queues leaves others a free one. Pure. Upstream counterpart: util/shufflesharding.

/** 53 bits of the flow's name: two FNV-1a hashes with different starts. */
export function flowHash(schema: string, distinguisher: string): number {
  let low = 0x811c9dc5;
  let high = 0x2f0b4c47;
  const text = `${schema}\0${distinguisher}`;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    low = Math.imul(low ^ code, 0x01000193);
    high = Math.imul(high ^ code, 0x01000193) ^ (high >>> 15);
  }
  return (high & 0x1fffff) * 2 ** 32 + (low >>> 0);
}

/** Different cards out of `deckSize`; fewer where the deck is smaller than the hand. */
export function dealHand(hash: number, deckSize: number, handSize: number): number[] {
  const hand: number[] = [];
  let rest = hash;
  for (let i = 0; i < Math.min(handSize, deckSize); i++) {
    const left = deckSize - i;
    let card = rest % left;
    rest = Math.floor(rest / left);
    // The card-th of those that are still in the deck.
    for (const taken of [...hand].sort((a, b) => a - b)) if (card >= taken) card++;
    hand.push(card);
  }
  return hand;
}
