// Everything that is not the cluster's goes to the machine's resolvers, byte for byte: a fresh socket and a random id for
// each question (against forged answers), the next resolver after a time-out, TCP where the answer was cut, and a small
// cache. Upstream counterpart: CoreDNS forward and cache plugins as k3s configures them (cache 30).
import type { Clock, Random } from "#base/clock.ts";
import { AppError, messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { connectTcp, openUdp } from "#platform/datagram.ts";
import {
  ednsOf,
  headerSize,
  idOf,
  isResponse,
  isTruncated,
  lifetimeOf,
  questionOf,
  rcodeOf,
  rcodes,
  replay,
} from "./message.ts";

export interface Resolver {
  readonly address: string;
  readonly port: number;
}

export interface ForwarderDeps {
  /** The resolvers to ask, in order; asked again now and then, since leases change them. */
  readonly resolvers: () => Promise<readonly Resolver[]>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface Forwarder {
  /** The answer for this query, with its id and spelling; undefined where no resolver answered. */
  ask(query: Buffer): Promise<Buffer | undefined>;
}

/** One question may hold a socket for some seconds; more at once than this are turned away. */
const maxInFlight = 256;
const timeoutMs = 2000;
const maxAttempts = 4;
/** As `cache 30`: names keep working through short outages of nothing, and changes show within half a minute. */
const maxCacheSeconds = 30;
/** Entries of at most 4 KiB each. */
const maxCacheEntries = 1024;
const maxCachedBytes = 4096;
const resolverRefreshMs = 10_000;

interface Cached {
  readonly response: Buffer;
  readonly storedMs: number;
  readonly untilMs: number;
}

export function createForwarder(deps: ForwarderDeps): Forwarder {
  const { clock, log, random } = deps;
  const cache = new Map<string, Cached>();
  let inFlight = 0;
  let known: { readonly list: Promise<readonly Resolver[]>; readonly atMs: number } | undefined;

  const resolvers = (): Promise<readonly Resolver[]> => {
    const nowMs = clock.monotonicMs();
    if (!known || nowMs - known.atMs > resolverRefreshMs) known = { list: deps.resolvers(), atMs: nowMs };
    return known.list;
  };

  const remember = (key: string, response: Buffer): void => {
    const code = rcodeOf(response);
    const isKept = code === rcodes.noError || code === rcodes.nameError;
    const seconds = Math.min(maxCacheSeconds, lifetimeOf(response));
    if (!isKept || seconds <= 0 || response.length > maxCachedBytes || isTruncated(response)) return;
    cache.delete(key);
    const storedMs = clock.monotonicMs();
    cache.set(key, { response, storedMs, untilMs: storedMs + seconds * 1000 });
    if (cache.size > maxCacheEntries) cache.delete(cache.keys().next().value ?? "");
  };

  const askOne = async (query: Buffer, resolver: Resolver): Promise<Buffer> => {
    const response = await askUdp(query, resolver, deps);
    // What fitted is better than nothing: its mark of truncation goes on to whoever asked.
    return isTruncated(response) ? await askTcp(query, resolver, deps).catch(() => response) : response;
  };

  return {
    async ask(query) {
      const question = questionOf(query);
      if (!question) return undefined;
      const edns = ednsOf(query);
      // Answers differ by whether EDNS was there, by the DO bit and by the CD bit.
      const key = [
        question.name,
        question.type,
        question.class,
        edns ? (edns.isDnssecOk ? 2 : 1) : 0,
        query[3]! & 0x10,
      ].join(" ");
      const cached = cache.get(key);
      const nowMs = clock.monotonicMs();
      if (cached && cached.untilMs > nowMs) {
        return replay(cached.response, query, Math.floor((nowMs - cached.storedMs) / 1000));
      }
      if (inFlight >= maxInFlight) return undefined;
      inFlight++;
      try {
        const list = await resolvers();
        if (list.length === 0) return undefined;
        let last: Buffer | undefined;
        for (let attempt = 0; attempt < Math.min(maxAttempts, Math.max(2, list.length)); attempt++) {
          const resolver = list[attempt % list.length]!;
          const sent = Buffer.from(query);
          sent.writeUInt16BE(Math.floor(random.float() * 0x10000), 0);
          try {
            const response = await askOne(sent, resolver);
            last = replay(response, query, 0);
            // A resolver that is itself in trouble says nothing about the name.
            if (rcodeOf(response) === rcodes.serverFailure || rcodeOf(response) === rcodes.refused) continue;
            remember(key, response);
            return last;
          } catch (error) {
            log.debug("resolver did not answer", { resolver: resolver.address, error: messageOf(error) });
          }
        }
        return last;
      } finally {
        inFlight--;
      }
    },
  };
}

interface Waiting {
  readonly promise: Promise<Buffer>;
  readonly resolve: (response: Buffer) => void;
  readonly reject: (error: Error) => void;
}

function waiting(): Waiting {
  let resolve: Waiting["resolve"] = () => {};
  let reject: Waiting["reject"] = () => {};
  const promise = new Promise<Buffer>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

const timedOut = (resolver: Resolver): Error =>
  new AppError("NETWORK_DNS_TIMEOUT", `resolver ${resolver.address} did not answer within ${timeoutMs} ms`);

/** Answers another question, or none: forged or late. */
function isAnswerTo(query: Buffer, response: Buffer): boolean {
  if (response.length < headerSize || !isResponse(response) || idOf(response) !== idOf(query)) return false;
  const asked = questionOf(query);
  const answered = questionOf(response);
  return (
    asked !== undefined &&
    answered?.name === asked.name &&
    answered.type === asked.type &&
    answered.class === asked.class
  );
}

async function askUdp(query: Buffer, resolver: Resolver, { clock }: ForwarderDeps): Promise<Buffer> {
  const answer = waiting();
  const socket = await openUdp({
    address: resolver.address.includes(":") ? "::" : "0.0.0.0",
    port: 0,
    onMessage(message, from) {
      if (from.address === resolver.address && from.port === resolver.port && isAnswerTo(query, message)) {
        answer.resolve(message);
      }
    },
    onError: answer.reject,
  });
  const cancel = clock.after(timeoutMs, () => answer.reject(timedOut(resolver)));
  try {
    socket.send(query, resolver.port, resolver.address);
    return await answer.promise;
  } finally {
    cancel();
    await socket.close();
  }
}

async function askTcp(query: Buffer, resolver: Resolver, { clock }: ForwarderDeps): Promise<Buffer> {
  const abort = new AbortController();
  const cancel = clock.after(timeoutMs, () => abort.abort(timedOut(resolver)));
  try {
    const connection = await connectTcp(resolver.address, resolver.port, abort.signal);
    try {
      connection.write(framed(query));
      for await (const message of messagesIn(connection.chunks)) if (isAnswerTo(query, message)) return message;
      throw new AppError("NETWORK_DNS_CLOSED", `resolver ${resolver.address} closed the connection`);
    } finally {
      connection.close();
    }
  } finally {
    cancel();
  }
}

/** With the two length bytes of DNS over TCP (RFC 7766). */
export function framed(message: Uint8Array): Buffer {
  const out = Buffer.alloc(2 + message.length);
  out.writeUInt16BE(message.length, 0);
  out.set(message, 2);
  return out;
}

/** Whole messages of a TCP stream; at most one of 64 KiB is held back. */
export async function* messagesIn(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of chunks) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 2) {
      const length = rest.readUInt16BE(0);
      if (rest.length < 2 + length) break;
      yield rest.subarray(2, 2 + length);
      rest = rest.subarray(2 + length);
    }
  }
}
