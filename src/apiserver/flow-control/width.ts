// How many seats a request takes: one, except lists, which take one for each hundred objects they go through, and ten at
// most. How many there are is what the last list of the resource had. Upstream counterpart: util/flowcontrol/request.
import type { RequestInfo } from "../endpoints/request-info.ts";

const objectsPerSeat = 100;
const maxSeats = 10;
/** Kinds of which the size is remembered: more than any cluster has. */
const maxResources = 2000;

export class RequestWidths {
  readonly #counts = new Map<string, number>();

  of(info: RequestInfo, query: URLSearchParams): number {
    if (info.verb !== "list" || info.name !== "") return 1;
    const known = this.#counts.get(keyOf(info)) ?? 0;
    const limit = Number(query.get("limit") ?? "0");
    const objects = limit > 0 ? Math.min(limit, known) : known;
    return Math.min(maxSeats, Math.max(1, Math.ceil(objects / objectsPerSeat)));
  }

  /** `count`: objects of a list that was not selected from, with what is behind its page. */
  learn(info: RequestInfo, count: number): void {
    const key = keyOf(info);
    if (count > objectsPerSeat) {
      if (this.#counts.size < maxResources || this.#counts.has(key)) this.#counts.set(key, count);
    } else this.#counts.delete(key);
  }
}

const keyOf = (info: RequestInfo): string => `${info.group}/${info.resource}/${info.namespace}`;
