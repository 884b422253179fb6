// Prints lock.json with what the suite holds now, for a deliberate change of pins.
import { readFile } from "node:fs/promises";
import { findDebianPackage } from "#scripts/debian.ts";

const lock = JSON.parse(await readFile("scripts/gen/lock.json", "utf8")) as Record<string, unknown>;
const result: Record<string, { version: string; sha256: string }> = {};
for (const name of Object.keys(lock)) {
  const { version, sha256 } = await findDebianPackage(name, "all");
  result[name] = { version, sha256 };
}
console.log(JSON.stringify(result, null, 2));
