// The node's end of the tunnel bench, in a process of its own: dials the server and answers what it opens. `echo:1` gives
// back what comes, `sink:1` reads all, `source:N` sends N MiB, `silent:1` never reads. Tells its processor time by fork's channel.
import { readFileSync } from "node:fs";
import { Duplex, PassThrough, Writable } from "node:stream";
import { silentLogger } from "#base/log.ts";
import { systemClock } from "#platform/clock.ts";
import { systemRandom } from "#platform/random.ts";
import { createTunnelClient } from "#supervisor/tunnel/client.ts";
import { loadCodec } from "#supervisor/tunnel/codec.ts";

const [port, ca] = [Number(process.argv[2]), readFileSync(process.argv[3]!, "utf8")];
const piece = Buffer.alloc(64 * 1024, "s");

function source(bytes: number): Duplex {
  let left = bytes;
  return new Duplex({
    read() {
      if (left <= 0) {
        this.push(null);
        return;
      }
      left -= piece.length;
      this.push(piece);
    },
    write: (_chunk, _encoding, done) => done(),
  });
}

const kinds: Readonly<Record<string, (count: number) => Duplex>> = {
  echo: () => new PassThrough(),
  sink: () => Duplex.from(new Writable({ write: (_chunk, _encoding, done) => done() })),
  source: (mib) => source(mib * 1024 * 1024),
  silent: () => new Duplex({ read() {}, write() {} }),
};

const client = createTunnelClient(
  { host: "127.0.0.1", port, tls: () => ({ ca }) },
  {
    ...{ clock: systemClock, random: systemRandom, log: silentLogger },
    codec: loadCodec((size) => systemRandom.bytes(size)),
    mayDial: () => true,
    async open(_proto, address) {
      const [kind = "", count] = address.split(":");
      return kinds[kind]!(Number(count));
    },
  },
);
process.on("message", () => process.send?.(process.cpuUsage()));
const stop = new AbortController();
process.on("disconnect", () => stop.abort(new Error("the bench is over")));
await client.run(stop.signal, () => {});
