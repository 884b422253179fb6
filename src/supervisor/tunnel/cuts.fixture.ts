// Streams over real sockets through a wire that is cut at random: what a run of it found. All chance comes from the seed; time
// does not, so a seed repeats the plan of a run and not its every byte. `isBridged: false` makes the node forget its session at
// each cut, as if there were no resumption: then streams must break, or the run proves nothing.
import { Duplex } from "node:stream";
import { systemClock } from "#platform/clock.ts";
import { dialBareWebSocket } from "#platform/raw-websocket.ts";
import { seededRandom } from "#test/harness/seeded-random.ts";
import { moteHeader } from "./messages.ts";
import { TunnelRig, until } from "./rig.fixture.ts";

export interface CutsOptions {
  readonly seed: number;
  readonly streams: number;
  /** Each stream carries up to so many. */
  readonly mostBytes: number;
  readonly isBridged?: boolean;
}

export interface CutsResult {
  readonly cuts: number;
  readonly bytes: number;
  /** What was lost, repeated, broken or hung. */
  readonly problems: readonly string[];
}

/** A byte tells of which stream it is and where it stands there. */
function pattern(stream: number, size: number): Buffer {
  const out = Buffer.allocUnsafe(size);
  for (let i = 0; i < size; i++) out[i] = (i * 31 + (i >> 8) * 7 + (i >> 16) * 13 + stream * 101) & 255;
  return out;
}

/** A run takes a tenth of it beside other work. */
const timeoutMs = 100_000;
/** On a quick machine the second half of what is written waits for them. */
const leastCuts = 6;

type Kind = "echo" | "download" | "upload";

interface Work {
  readonly kind: Kind;
  readonly index: number;
  readonly size: number;
  /** What the node got of an upload, when its end came. */
  arrived?: Buffer;
}

const kinds: readonly Kind[] = ["echo", "download", "upload"];

/** The node's end of a stream: whoever is dialed. */
function partner(work: Work): Duplex {
  const parts: Buffer[] = [];
  if (work.kind === "echo") {
    return new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        this.push(Buffer.from(chunk));
        done();
      },
      final(done) {
        this.push(null);
        done();
      },
    });
  }
  let left = work.kind === "download" ? pattern(work.index, work.size) : undefined;
  return new Duplex({
    read() {
      if (!left) return;
      if (left.length === 0) {
        left = undefined;
        this.push(null);
        return;
      }
      const size = 1 + ((left.length * 7919) % 40_000);
      const part = left.subarray(0, size);
      left = left.subarray(size);
      this.push(part);
    },
    write(chunk: Buffer, _encoding, done) {
      parts.push(Buffer.from(chunk));
      done();
    },
    final(done) {
      work.arrived = Buffer.concat(parts);
      this.push(null);
      done();
    },
  });
}

export async function playCuts(options: CutsOptions): Promise<CutsResult> {
  const random = seededRandom(options.seed);
  const int = (most: number) => Math.floor(random.float() * most);
  const rig = new TunnelRig();
  const problems: string[] = [];
  let cuts = 0;
  let bytes = 0;
  let open = options.streams;
  const works = Array.from(
    { length: options.streams },
    (_, index): Work => ({ kind: kinds[index % 3]!, index, size: Math.floor(random.float() ** 2 * options.mostBytes) }),
  );
  try {
    const { tunnels, door } = await rig.host();
    const wire = await rig.wire(door.port, seededRandom(options.seed + 1));
    const quick = seededRandom(options.seed + 2);
    const client = rig.client(wire.port, "n1", {
      // Short pauses: more cuts in the same time.
      random: { ...quick, float: () => quick.float() * 0.2 },
      open: async (_proto, address) => partner(works[Number(address.split(":")[1])]!),
      ...(options.isBridged === false
        ? {
            dial: (dial, signal) => {
              const hello = dial.headers[moteHeader]?.replace(/; session=.*/, "").replace(/from=\d+/, "from=0") ?? "";
              return dialBareWebSocket({ ...dial, headers: { ...dial.headers, [moteHeader]: hello } }, signal);
            },
          }
        : {}),
    });
    // Both ends: a node that is cut before it has the server's first answer has nothing to go on with.
    await until(() => tunnels.has("n1") && client.isConnected);

    const carry = async (work: Work): Promise<void> => {
      const { kind, index, size } = work;
      const sent = pattern(index, size);
      const stream = tunnels.dial("n1", "tcp", `x:${index}`);
      const parts: Buffer[] = [];
      let have = 0;
      const over = new Promise<void>((resolve, reject) => {
        const look = () => {
          if (kind === "echo" && have >= size) resolve();
        };
        stream.on("data", (part: Buffer) => {
          parts.push(Buffer.from(part));
          have += part.length;
          look();
        });
        stream.once("end", () => (kind === "echo" && have < size ? reject(new Error("it ended")) : resolve()));
        stream.once("error", reject);
        look();
      });
      over.catch(() => {});
      if (kind !== "download") {
        for (let at = 0; at < sent.length && !stream.destroyed; ) {
          const piece = 1 + Math.floor(random.float() ** 4 * 60_000);
          if (!stream.write(sent.subarray(at, at + piece)))
            await Promise.race([new Promise((resolve) => stream.once("drain", resolve)), over.catch(() => {})]);
          if (at <= sent.length / 2 && at + piece > sent.length / 2)
            await until(() => cuts >= leastCuts || stream.destroyed, timeoutMs);
          at += piece;
          if (random.float() < 0.2) await systemClock.sleep(int(15));
        }
      }
      if (kind === "upload") {
        stream.end();
        await until(() => work.arrived !== undefined || stream.errored !== null, timeoutMs);
      } else await over;
      const got = kind === "upload" ? work.arrived : Buffer.concat(parts);
      if (!got?.equals(sent))
        problems.push(`${kind} ${index}: ${got?.length ?? "nothing"} of ${size} bytes, or others`);
      bytes += size;
      stream.destroy();
    };

    const carried = works.map(async (work) => {
      try {
        await carry(work);
      } catch (error) {
        problems.push(`${work.kind} ${work.index}: ${error instanceof Error ? error.message : String(error)}`);
      } finally {
        open--;
      }
    });
    const cutter = async (): Promise<void> => {
      while (open > 0) {
        await systemClock.sleep(5 + Math.floor(random.float() ** 2 * 150));
        // Mostly of a connection that stands: on a busy machine none would ever come to stand.
        if (random.float() < 0.8) await until(() => client.isConnected || open === 0, timeoutMs);
        if (open === 0) return;
        cuts++;
        // Now and then the way is gone for a while, so that attempts fail too; and cuts come while it is being resumed.
        const isAway = random.float() < 0.3;
        wire.refuse(isAway);
        // Who does not notice finds out by asking, which takes seconds; so not too often.
        wire.cut(client.isConnected ? (["both", "both", "both", "near", "near", "far"] as const)[int(6)] : "both");
        if (isAway) await systemClock.sleep(int(150));
        wire.refuse(false);
      }
    };
    const hung = new AbortController();
    const timeout = systemClock.sleep(timeoutMs, hung.signal).then(
      () => void problems.push(`${open} of ${options.streams} streams hang`),
      () => {},
    );
    await Promise.race([Promise.all([...carried, cutter()]), timeout]);
    open = 0;
    hung.abort(new Error("over"));
  } finally {
    await rig.close();
  }
  return { cuts, bytes, problems };
}
