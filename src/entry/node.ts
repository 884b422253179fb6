import type { Service } from "#base/service.ts";
import type { ServerContext } from "./server.ts";
export function nodeServices(_context: ServerContext): Service[] {
  return [];
}
