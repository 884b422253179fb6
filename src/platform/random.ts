// The real source of chance: the operating system's.
import { randomBytes, randomUUID } from "node:crypto";
import type { Random } from "#base/clock.ts";

export const systemRandom: Random = {
  float: () => randomBytes(4).readUInt32BE() / 2 ** 32,
  bytes: (size) => new Uint8Array(randomBytes(size)),
  uuid: () => randomUUID(),
};
