// Cuts over real sockets and TLS: short here, for as long as one likes by `npm run test:tunnel`.
import { expect, test } from "vitest";
import { playCuts } from "./cuts.fixture.ts";

const rounds = Number(process.env["MOTE_TUNNEL_SEEDS"] ?? 1);
const first = Number(process.env["MOTE_TUNNEL_SEED"] ?? 1);

test.each(Array.from({ length: rounds }, (_, i) => first + i))(
  "seed %i: streams of all kinds survive cuts of all kinds",
  async (seed) => {
    const { cuts, bytes, problems } = await playCuts({ seed, streams: 24, mostBytes: 400_000 });
    expect(problems).toEqual([]);
    expect(cuts).toBeGreaterThanOrEqual(6);
    expect(bytes).toBeGreaterThan(1_000_000);
  },
  120_000,
);

test("control: where sessions are not resumed, streams break", async () => {
  const { problems } = await playCuts({ seed: 7, streams: 12, mostBytes: 2_000_000, isBridged: false });
  expect(problems.length).toBeGreaterThan(0);
  expect(problems.some((problem) => problem.includes("tunnel disconnect"))).toBe(true);
}, 120_000);
