// Health: what everybody is told, and what stands in the log instead.
import { expect, test } from "vitest";
import type { Logger } from "#base/log.ts";
import { Metrics } from "#base/metrics.ts";
import type { HandlerRequest } from "./result.ts";
import { answerSystem, type HealthCheck } from "./system.ts";

const checks: readonly HealthCheck[] = [
  { name: "ping", check() {} },
  {
    name: "etcd",
    async check() {
      throw new Error("no answer from 10.0.0.7:2379 as root");
    },
  },
  { name: "shutdown", readyOnly: true, check() {} },
];

async function ask(url: string, only?: string) {
  const logged: unknown[] = [];
  const log = { warn: (text: string, fields: object) => logged.push({ text, ...fields }) } as unknown as Logger;
  const { pathname, searchParams: query } = new URL(url, "http://x");
  const own = only === undefined ? checks : checks.filter(({ name }) => name !== only);
  const answer = await answerSystem(
    {
      ...{ log, checks: own, metrics: new Metrics(), jwksUri: "", tokenIssuer: undefined },
      version: {} as never,
      paths: () => [],
    },
    { query } as HandlerRequest,
    pathname,
  );
  const { status, body } = answer as { status: number; body: string };
  return { status, body, logged };
}

test.each<[string, number, string]>([
  ["/readyz", 500, "[+]ping ok\n[-]etcd failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n"],
  ["/readyz?verbose", 500, "[+]ping ok\n[-]etcd failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n"],
  ["/livez", 500, "[+]ping ok\n[-]etcd failed: reason withheld\nlivez check failed\n"],
  ["/healthz?exclude=etcd", 200, "ok"],
  ["/readyz?verbose&exclude=etcd", 200, "[+]ping ok\n[+]etcd excluded: ok\n[+]shutdown ok\nreadyz check passed\n"],
  [
    "/livez?verbose&exclude=etcd&exclude=b&exclude=a",
    200,
    '[+]ping ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: no matches for "a","b"\nlivez check passed\n',
  ],
  ["/readyz/ping", 200, "ok"],
  ["/readyz/ping?verbose", 200, "ok"],
  ["/readyz/etcd", 500, "internal server error: no answer from 10.0.0.7:2379 as root\n"],
  ["/livez/shutdown", 404, "404 page not found\n"],
])("%s: %i", async (url, status, body) => {
  expect(await ask(url)).toMatchObject({ status, body });
});

test("the reason is logged, once for a request; nothing is where all is well", async () => {
  expect((await ask("/readyz")).logged).toEqual([
    { text: "health check failed", endpoint: "readyz", etcd: "no answer from 10.0.0.7:2379 as root" },
  ]);
  expect(await ask("/readyz", "etcd")).toEqual({ status: 200, body: "ok", logged: [] });
});
