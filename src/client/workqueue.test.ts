import { expect, test } from "vitest";
import { Metrics } from "#base/metrics.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { WorkQueue } from "./workqueue.ts";

function start(workers: number, work: (key: string) => Promise<void>) {
  const clock = new FakeClock();
  const queue = new WorkQueue({ name: "test" }, { clock });
  const stop = new AbortController();
  const done = queue.run({ workers }, work, stop.signal);
  return { clock, queue, stop, done };
}

test("a key added many times is worked on once, in order of first add", async () => {
  const seen: string[] = [];
  const { clock, queue, stop, done } = start(1, async (key) => void seen.push(key));
  for (const key of ["a", "b", "a", "c", "b"]) queue.add(key);
  await clock.advance(0);
  stop.abort();
  await done;
  expect(seen).toEqual(["a", "b", "c"]);
});

test("a key is never worked on twice at a time, and is worked on again when added meanwhile", async () => {
  let release = () => {};
  let active = 0;
  let most = 0;
  let times = 0;
  const { clock, queue, stop, done } = start(4, async () => {
    times++;
    most = Math.max(most, ++active);
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    active--;
  });
  queue.add("a");
  await clock.advance(0);
  queue.add("a");
  queue.add("a");
  await clock.advance(0);
  expect(times).toBe(1);
  release();
  await clock.advance(0);
  expect(times).toBe(2);
  release();
  await clock.advance(0);
  stop.abort();
  await done;
  expect({ most, times }).toEqual({ most: 1, times: 2 });
});

test("no more keys than workers are active", async () => {
  let active = 0;
  let most = 0;
  const { clock, queue, stop, done } = start(3, async () => {
    most = Math.max(most, ++active);
    await clock.sleep(10);
    active--;
  });
  for (let i = 0; i < 10; i++) queue.add(`k${i}`);
  await clock.advance(1000);
  stop.abort();
  await done;
  expect(most).toBe(3);
});

test("pauses double from 5 ms to 1000 s and start afresh after forget", async () => {
  const atMs: number[] = [];
  const { clock, queue, stop, done } = start(1, async (key) => {
    atMs.push(clock.monotonicMs());
    queue.retry(key);
  });
  queue.add("a");
  await clock.advance(200);
  expect(atMs).toEqual([0, 5, 15, 35, 75, 155]);
  await clock.advance(10_000_000);
  const last = atMs.at(-1)! - atMs.at(-2)!;
  expect(last).toBe(1_000_000);
  queue.forget("a");
  expect(queue.failures("a")).toBe(0);
  stop.abort();
  await done;
});

test("of several delays the earliest counts, and nothing is left behind after the end", async () => {
  const atMs: number[] = [];
  const { clock, queue, stop, done } = start(1, async () => void atMs.push(clock.monotonicMs()));
  queue.addAfter("a", 500);
  queue.addAfter("a", 100);
  queue.addAfter("a", 300);
  queue.addAfter("b", 9000);
  await clock.advance(1000);
  expect(atMs).toEqual([100]);
  stop.abort();
  await done;
  expect(clock.pending).toBe(0);
});

test("run waits for active work before it resolves", async () => {
  let finished = false;
  const { clock, queue, stop, done } = start(1, async () => {
    await clock.sleep(50);
    finished = true;
  });
  queue.add("a");
  await clock.advance(0);
  stop.abort();
  await clock.advance(100);
  await done;
  expect(finished).toBe(true);
});

test("what was delayed when the queue ended is worked on when it runs again", async () => {
  const seen: string[] = [];
  const { clock, queue, stop, done } = start(1, async (key) => void seen.push(key));
  queue.addAfter("later", 60_000);
  await clock.advance(10);
  stop.abort();
  await done;
  const again = new AbortController();
  const second = queue.run({ workers: 1 }, async (key) => void seen.push(key), again.signal);
  await clock.advance(0);
  again.abort();
  await second;
  expect(seen).toEqual(["later"]);
});

test("tells what it does under upstream's names", async () => {
  const clock = new FakeClock();
  const metrics = new Metrics();
  const queue = new WorkQueue({ name: "job" }, { clock, metrics });
  const stop = new AbortController();
  let isFirst = true;
  const done = queue.run(
    { workers: 1 },
    async (key) => {
      await clock.sleep(2000);
      if (isFirst) queue.retry(key);
      isFirst = false;
    },
    stop.signal,
  );
  for (const key of ["a", "b", "a"]) queue.add(key);
  const has = (line: string) => expect(metrics.render().split("\n")).toContain(line);
  has('workqueue_depth{name="job"} 2');
  await clock.advance(1000);
  has('workqueue_adds_total{name="job"} 2');
  has('workqueue_depth{name="job"} 1');
  has('workqueue_unfinished_work_seconds{name="job"} 1');
  has('workqueue_longest_running_processor_seconds{name="job"} 1');
  await clock.advance(10_000);
  has('workqueue_adds_total{name="job"} 3');
  has('workqueue_retries_total{name="job"} 1');
  has('workqueue_depth{name="job"} 0');
  has('workqueue_longest_running_processor_seconds{name="job"} 0');
  has('workqueue_work_duration_seconds_sum{name="job"} 6');
  has('workqueue_work_duration_seconds_count{name="job"} 3');
  // b and the second a waited for what was before them.
  has('workqueue_queue_duration_seconds_bucket{name="job",le="1"} 1');
  has('workqueue_queue_duration_seconds_bucket{name="job",le="10"} 3');
  stop.abort();
  await done;
});
