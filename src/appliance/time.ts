// Sets the clock: at start to a moment that has certainly passed, then by time servers. The last known time is written at
// most once a day and when the device is switched off.
import { type Clock, pause, type Random } from "#base/clock.ts";
import { withEither } from "#base/either-signal.ts";
import type { Logger } from "#base/log.ts";
import type { Service } from "#base/service.ts";
import { openUdp } from "#platform/datagram.ts";
import { readFileIfExists, writeFileDurable } from "#platform/files.ts";
import { type Commands, runChecked } from "#platform/processes.ts";
import { resolveHost } from "#platform/resolve-host.ts";
import { decodeOffset, encodeRequest, sntpPort } from "#wire/sntp.ts";
import { floorOf, isBelow, parseLastKnown, serverTime, shouldPersist, startTime } from "./clock-plan.ts";

export interface TimeOptions {
  /** Holds the last known time. */
  readonly path: string;
  readonly past: readonly (number | undefined)[];
}

export interface TimeDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Sets the system's clock. */
  readonly setTime: (ms: number) => Promise<void>;
  /** Told, in a sentence, when a time server says that it is earlier than is known to be possible. */
  readonly onDisbelief?: (sentence: string) => void;
}

const retryMs = { min: 2_000, max: 10 * 60_000 } as const;
/** Quartz drifts by seconds a day. */
const repeatMs = 3 * 3600_000;
const answerTimeoutMs = 3_000;
const checkPersistMs = 6 * 3600_000;

/** With whole seconds: what `date` understands everywhere. */
export const setTimeWith =
  (commands: Commands) =>
  async (ms: number): Promise<void> =>
    void (await runChecked(commands, "date", ["-u", "-s", `@${Math.round(ms / 1000)}`]));

/** Moves the clock forward to the latest moment known to have passed. */
export async function startClock(options: TimeOptions, deps: TimeDeps): Promise<void> {
  const lastKnownMs = await readLastKnown(options.path);
  const ms = startTime({ nowMs: deps.clock.now(), past: [...options.past, lastKnownMs] });
  if (ms === undefined) return;
  await deps.setTime(ms);
  deps.log.warn("the clock was behind and has been set to the last known time", { time: new Date(ms).toISOString() });
}

export async function persistTime(path: string, clock: Clock): Promise<void> {
  await writeFileDurable(path, `${new Date(clock.now()).toISOString()}\n`);
}

const readLastKnown = async (path: string) => parseLastKnown((await readFileIfExists(path))?.toString("utf8"));

/** Writes the last known time when a day has passed. */
export function createTimeKeeper(options: TimeOptions, deps: Pick<TimeDeps, "clock">): Service {
  const { clock } = deps;
  return {
    name: "time-keeper",
    async run(signal, ready) {
      ready();
      while (!signal.aborted) {
        await pause(clock, checkPersistMs, signal);
        if (signal.aborted) return;
        if (shouldPersist(clock.now(), await readLastKnown(options.path))) await persistTime(options.path, clock);
      }
    },
  };
}

/** Asks the servers in turn until one answers, then again every few hours. `servers` is asked each time: leases come and go. */
export function createTimeSync(
  options: TimeOptions & { readonly servers: () => Promise<readonly string[]>; readonly port?: number },
  deps: TimeDeps,
): Service {
  const { clock, log } = deps;
  return {
    name: "time-sync",
    async run(signal, ready) {
      ready();
      let pauseMs: number = retryMs.min;
      while (!signal.aborted) {
        const answer = await askAny(await options.servers(), options.port ?? sntpPort, deps, signal);
        if (answer) {
          const past = [...options.past, await readLastKnown(options.path)];
          const ms = serverTime({ nowMs: clock.now(), offsetMs: answer.offsetMs, past });
          if (ms !== undefined) {
            await deps.setTime(ms);
            log.info("the clock was set", { server: answer.server, offsetMs: Math.round(answer.offsetMs) });
          } else if (isBelow({ nowMs: clock.now(), offsetMs: answer.offsetMs, past })) {
            const [said, known] = [clock.now() + answer.offsetMs, floorOf(past)].map((at) =>
              new Date(at).toISOString(),
            );
            log.warn("a time server is not believed", { server: answer.server, said, known });
            deps.onDisbelief?.(
              `The time server ${answer.server} says it is ${said?.slice(0, 10)}, but this device has seen ${known?.slice(0, 10)}. Its clock never goes back; if the device was wrong, it needs a factory reset.`,
            );
          }
          if (shouldPersist(clock.now(), past.at(-1))) await persistTime(options.path, clock);
          pauseMs = retryMs.min;
        } else pauseMs = Math.min(pauseMs * 2, retryMs.max);
        await pause(clock, answer ? repeatMs : pauseMs, signal);
      }
    },
  };
}

async function askAny(
  servers: readonly string[],
  port: number,
  deps: TimeDeps,
  signal: AbortSignal,
): Promise<{ readonly server: string; readonly offsetMs: number } | undefined> {
  for (const server of servers) {
    const address = (await resolveHost(server))[0];
    if (signal.aborted) return undefined;
    const offsetMs = address === undefined ? undefined : await ask(address, port, deps, signal);
    if (offsetMs !== undefined) return { server, offsetMs };
  }
  return undefined;
}

/** The offset, or undefined where no answer came in time. */
async function ask(
  address: string,
  port: number,
  { clock, random }: TimeDeps,
  signal: AbortSignal,
): Promise<number | undefined> {
  const nonce = random.bytes(8);
  const sentMs = clock.now();
  const stop = new AbortController();
  let offsetMs: number | undefined;
  const socket = await openUdp({
    address: "0.0.0.0",
    port: 0,
    onMessage(data, from) {
      if (from.address !== address) return;
      offsetMs ??= decodeOffset(data, { nonce, sentMs, receivedMs: clock.now() });
      if (offsetMs !== undefined) stop.abort(new Error("answered"));
    },
    onError: () => stop.abort(new Error("unreachable")),
  });
  try {
    socket.send(encodeRequest(nonce), port, address);
    await withEither([stop.signal, signal], (over) => pause(clock, answerTimeoutMs, over));
  } finally {
    await socket.close();
  }
  return offsetMs;
}
