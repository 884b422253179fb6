// `npm run test:network [-- --only NAME]`: a server and an agent with a bad wire between them, scenario by scenario, and a table
// of how long it took until both knew and until everything was usable again, beside the goals. Needs root. About six minutes.
// `--control` cuts nothing: then nobody may notice anything, and the run fails.
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { buildStages } from "#scripts/build/build.ts";
import { main, runStages, UserError } from "#scripts/stages.ts";
import { bothWays, type Direction, Partition, type Streams } from "#test/e2e/partition-fixture.ts";

/** Found out, and usable again: the goals, on a machine that is not busy. */
const noticedGoalMs = 3000;
const usableGoalMs = 1000;

interface Scenario {
  readonly name: string;
  /** Ends when the wire is good again; orders a pod before that where the server can take it. */
  readonly disturb: (partition: Partition, order: () => Promise<void>) => Promise<void>;
  /** Streams are held for 30 seconds. */
  readonly streamsEnd?: true;
  /** Somebody may find out, or nobody. */
  readonly unnoticed?: true;
  /** It is slow and there: neither end may take the other for gone. */
  readonly calm?: true;
}

const nothing = async (): Promise<void> => {};
const cutFor =
  (seconds: number, directions: readonly Direction[] = bothWays) =>
  async (partition: Partition, order: () => Promise<void>): Promise<void> => {
    await partition.cut(directions);
    await sleep(seconds * 1000);
    await order();
    await partition.heal();
  };

const scenarios: readonly Scenario[] = [
  { name: "cut for 1.5 s", disturb: cutFor(1.5), unnoticed: true },
  { name: "cut for 5 s", disturb: cutFor(5) },
  { name: "cut for 27 s", disturb: cutFor(27) },
  { name: "cut for 75 s", disturb: cutFor(75), streamsEnd: true },
  { name: "one way: nothing reaches the agent, 10 s", disturb: cutFor(10, ["to-agent"]) },
  { name: "one way: nothing reaches the server, 10 s", disturb: cutFor(10, ["to-server"]) },
  {
    name: "flapping: 1 s on, 1 s off, ten times",
    unnoticed: true,
    async disturb(partition, order) {
      for (let i = 0; i < 9; i++) {
        await cutFor(1)(partition, nothing);
        await sleep(1000);
      }
      await cutFor(1)(partition, order);
    },
  },
  {
    name: "flapping: 4 s off, 2 s on, five times",
    async disturb(partition, order) {
      for (let i = 0; i < 4; i++) {
        await cutFor(4)(partition, nothing);
        await sleep(2000);
      }
      await cutFor(4)(partition, order);
    },
  },
  {
    name: "256 kbit/s for 20 s",
    calm: true,
    async disturb(partition, order) {
      await partition.limit("256kbit");
      await sleep(20_000);
      await order();
      await partition.limit(undefined);
    },
  },
  ...(["to-server", "to-agent"] as const).map(
    (direction): Scenario => ({
      name: `128 kbit/s full of bulk ${direction.replace("-", " the ")} for 20 s`,
      calm: true,
      async disturb(partition, order) {
        await partition.limit("128kbit");
        const stop = partition.bulk(direction, 10_000_000);
        await sleep(20_000);
        stop();
        await partition.limit(undefined);
        await order();
      },
    }),
  ),
  {
    name: "every tenth packet lost for 30 s",
    calm: true,
    async disturb(partition, order) {
      await partition.lose(10);
      await sleep(30_000);
      await partition.lose(0);
      await order();
    },
  },
  {
    name: "the agent gets another address",
    disturb: (partition) => partition.move("192.168.77.3", "192.168.77.9"),
  },
  {
    name: "the server is killed and starts again",
    streamsEnd: true,
    async disturb(partition) {
      await partition.hub.stop("SIGKILL");
      partition.startServer();
      await partition.serves();
    },
  },
  {
    name: "the server hangs for 5 s",
    calm: true,
    async disturb(partition) {
      partition.hub.signal("SIGSTOP");
      await sleep(5000);
      partition.hub.signal("SIGCONT");
    },
  },
];

interface Row {
  readonly name: string;
  /** By the agent, and by the server. */
  readonly noticedMs: number | undefined;
  readonly serverMs: number | undefined;
  readonly streamMs: number | undefined;
  readonly execMs: number;
  readonly watchMs: number;
  readonly problems: string;
}

/** What a scenario leaves behind must not be taken for the next one's: after a change of address logs are refused for a moment. */
async function begin(partition: Partition): Promise<Streams> {
  for (let left = 20; ; left--) {
    const streams = partition.streams();
    try {
      await streams.begun();
      return streams;
    } catch (error) {
      streams.end();
      if (left === 0) throw error;
      await sleep(500);
    }
  }
}

async function play(partition: Partition, scenario: Scenario): Promise<Row> {
  const before = await partition.container();
  const streams = await begin(partition);
  const gone = /the other end is silent|tunnel: lost|tunnel: ended/;
  const ends = [partition.leaf, partition.hub] as const;
  const silences = () => ends.reduce((sum, host) => sum + partition.count(host, /the other end is silent/), 0);
  const silencesBefore = silences();
  const noticed = Promise.all(ends.map((host) => partition.says(host, gone, 15_000).catch(() => undefined)));
  let isTakenUp: (() => Promise<void>) | undefined;
  await scenario.disturb(partition, async () => {
    isTakenUp = await partition.orderPod();
  });
  const goodMs = performance.now();
  const since = async (work: Promise<unknown>) => {
    await work;
    return Math.round(performance.now() - goodMs);
  };
  const taken = async (): Promise<void> => (isTakenUp ?? (await partition.orderPod()))();
  const echo = scenario.streamsEnd ? undefined : since(streams.echoMs()).catch(() => undefined);
  const [streamMs, execMs, watchMs] = await Promise.all([echo, since(partition.execMs()), since(taken())]);
  const verdict = await streams.verdict();
  const problems: string[] = [];
  if (!scenario.streamsEnd && verdict !== "") problems.push(verdict);
  if ((await partition.container()) !== before) problems.push("the pod was restarted");
  const [noticedMs, serverMs] = scenario.unnoticed || scenario.calm ? [] : await noticed;
  if (!scenario.unnoticed && !scenario.calm && noticedMs === undefined) problems.push("nobody noticed");
  const falsely = silences() - silencesBefore;
  if (scenario.calm && falsely > 0) problems.push(`who was there was taken for gone, ${falsely} times`);
  return { name: scenario.name, ...{ noticedMs, serverMs, streamMs, execMs, watchMs }, problems: problems.join("; ") };
}

await main(async () => {
  const { values } = parseArgs({ options: { only: { type: "string" }, control: { type: "boolean", default: false } } });
  if (process.getuid?.() !== 0) throw new UserError("networks of their own need root");
  await runStages(buildStages);
  const wanted = scenarios.filter(({ name }) => name.includes(values.only ?? ""));
  if (wanted.length === 0) throw new UserError(`--only ${values.only}: no scenario is called so`);
  const partition = new Partition();
  const rows: Row[] = [];
  await partition.open();
  try {
    for (const scenario of wanted) {
      console.log(`--- ${scenario.name}`);
      const row = await play(partition, values.control ? { ...scenario, disturb: () => sleep(3000) } : scenario);
      rows.push(row);
      console.log(JSON.stringify(row));
    }
  } finally {
    await partition.close();
  }
  const cell = (ms: number | undefined, goalMs: number) =>
    (ms === undefined ? "" : `${ms}${ms > goalMs ? " !" : ""}`).padStart(12);
  console.log(
    `${"".padEnd(44)}${["agent ms", "server ms", "stream ms", "exec ms", "watch ms"].map((t) => t.padStart(12)).join("")}`,
  );
  console.log(
    `${"goal".padEnd(44)}${cell(noticedGoalMs, noticedGoalMs).repeat(2)}${cell(usableGoalMs, usableGoalMs).repeat(3)}`,
  );
  for (const row of rows) {
    const { noticedMs, serverMs, streamMs, execMs, watchMs } = row;
    const noticed = [noticedMs, serverMs].map((ms) => cell(ms, noticedGoalMs)).join("");
    const usable = [streamMs, execMs, watchMs].map((ms) => cell(ms, usableGoalMs)).join("");
    console.log(`${row.name.padEnd(44)}${noticed}${usable}  ${row.problems}`);
  }
  if (rows.some(({ problems }) => problems !== "")) process.exitCode = 1;
});
