import { describe, expect, test } from "vitest";
import { Metrics } from "#base/metrics.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { parseRequest } from "../endpoints/request-info.ts";
import { FlowControl, type Seat } from "./flow-control.ts";
import { RequestWidths } from "./width.ts";

const listPods = parseRequest("GET", "/api/v1/pods", new URLSearchParams())!;
const never = new AbortController().signal;

function flowControlWith(totalSeats: number) {
  const clock = new FakeClock();
  const metrics = new Metrics();
  const flowControl = new FlowControl({ totalSeats, waitLimitMs: 15_000 }, { clock, metrics });
  let classified = "";
  const ask = (name: string, group = "system:authenticated"): Seat | Promise<Seat> =>
    flowControl.admit({ name, groups: [group] }, listPods, {
      ...{ width: 1, signal: never },
      onClassified(schemaUid, levelUid) {
        classified = `${schemaUid} ${levelUid}`;
      },
    });
  const value = (line: string) =>
    Number(
      metrics
        .render()
        .split("\n")
        .find((each) => each.startsWith(`${line} `))
        ?.split(" ")
        .at(-1),
    );
  return { clock, flowControl, ask, value, classified: () => classified };
}

const levelOf = (name: string, shares: number, uid = "") => ({
  metadata: { name, uid },
  spec: {
    type: "Limited",
    limited: { nominalConcurrencyShares: shares, lendablePercent: 0, limitResponse: { type: "Reject" } },
  },
});
const schemaOf = (name: string, user: string, level: string, uid = "") => ({
  metadata: { name, uid },
  spec: {
    priorityLevelConfiguration: { name: level },
    matchingPrecedence: 50,
    rules: [
      {
        subjects: [{ kind: "User", user: { name: user } }],
        resourceRules: [{ verbs: ["*"], apiGroups: ["*"], resources: ["*"], namespaces: ["*"], clusterScope: true }],
      },
    ],
  },
});

test("upstream's levels are there from the first request on", () => {
  const { value } = flowControlWith(600);
  expect(value('apiserver_flowcontrol_nominal_limit_seats{priority_level="global-default"}')).toBe(49);
  expect(value('apiserver_flowcontrol_lower_limit_seats{priority_level="global-default"}')).toBe(24);
  expect(value('apiserver_flowcontrol_nominal_limit_seats{priority_level="workload-low"}')).toBe(245);
  expect(value('apiserver_flowcontrol_nominal_limit_seats{priority_level="catch-all"}')).toBe(13);
});

test("who has no place in any schema goes to the catch-all, and no further", () => {
  const { ask, value } = flowControlWith(49);
  const seats = Array.from({ length: 2 }, () => ask("nobody", "nothing"));
  // One by right; what others lend comes on top.
  expect(seats).toHaveLength(2);
  expect(
    value('apiserver_flowcontrol_dispatched_requests_total{priority_level="catch-all",flow_schema="catch-all"}'),
  ).toBe(2);
});

test("seats are released once", () => {
  const { ask, value } = flowControlWith(600);
  const seat = ask("ann") as Seat;
  const executing =
    'apiserver_flowcontrol_current_executing_seats{priority_level="global-default",flow_schema="global-default"}';
  expect(value(executing)).toBe(1);
  seat.release();
  seat.release();
  expect(value(executing)).toBe(0);
});

describe("configuration", () => {
  test("a schema counts from the moment its level is there", () => {
    const { flowControl, ask, classified } = flowControlWith(600);
    flowControl.setSchema(schemaOf("mine", "ann", "mine", "S"));
    void ask("ann");
    expect(classified()).toBe(" ");
    flowControl.setLevel(levelOf("mine", 10, "L"));
    void ask("ann");
    expect(classified()).toBe("S L");
    void ask("bob");
    expect(classified()).toBe(" ");
    flowControl.removeLevel("mine");
    void ask("ann");
    expect(classified()).toBe(" ");
  });

  test("a request of a level that goes ends as it began", () => {
    const { flowControl, ask, value } = flowControlWith(600);
    flowControl.setLevel(levelOf("mine", 10));
    flowControl.setSchema(schemaOf("mine", "ann", "mine"));
    const seat = ask("ann") as Seat;
    const flow = '{priority_level="mine",flow_schema="mine"}';
    expect(value(`apiserver_flowcontrol_current_executing_requests${flow}`)).toBe(1);
    (ask("ann") as Seat).release();
    flowControl.removeSchema("mine");
    flowControl.removeLevel("mine");
    seat.release();
    // What was counted is told although the flow is forgotten.
    flowControl.removeSchema("mine");
    expect(value(`apiserver_flowcontrol_dispatched_requests_total${flow}`)).toBe(2);
    expect(value(`apiserver_flowcontrol_current_executing_requests${flow}`)).toBe(0);
    expect(value('apiserver_flowcontrol_nominal_limit_seats{priority_level="mine"}')).toBe(0);
  });

  test("the last resort cannot be taken away", () => {
    const { flowControl, ask, value } = flowControlWith(600);
    for (const name of ["exempt", "catch-all", "global-default"]) {
      flowControl.removeSchema(name);
      flowControl.removeLevel(name);
    }
    expect(value('apiserver_flowcontrol_nominal_limit_seats{priority_level="catch-all"}')).toBe(14);
    void ask("ann");
    expect(
      value('apiserver_flowcontrol_dispatched_requests_total{priority_level="catch-all",flow_schema="catch-all"}'),
    ).toBe(1);
    for (let i = 0; i < 1000; i++) void ask("admin", "system:masters");
  });
});

test("a level borrows while others do not need theirs, and gives back", async () => {
  const { clock, flowControl, ask, value } = flowControlWith(100);
  flowControl.setLevel(levelOf("mine", 10));
  flowControl.setSchema(schemaOf("mine", "ann", "mine"));
  const limit = () => value('apiserver_flowcontrol_current_limit_seats{priority_level="mine"}');
  expect(limit()).toBe(4);
  const seats: Seat[] = [];
  for (let i = 0; i < 5; i++) seats.push(ask("ann") as Seat);
  expect(limit()).toBe(5);
  // Seats are shared out every ten seconds at most.
  expect(() => void ask("ann")).toThrow("Too many requests, please try again later.");
  await clock.advance(10_000);
  expect(limit()).toBe(6);
  seats.push(ask("ann") as Seat);
  for (const seat of seats) seat.release();
  await clock.advance(40_000);
  expect(limit()).toBe(4);
  // Nothing goes on when all is as it was.
  expect(clock.pending).toBe(0);
});

test("a stopped one leaves no timer", () => {
  const { clock, flowControl, ask } = flowControlWith(100);
  flowControl.setLevel(levelOf("mine", 1));
  flowControl.setSchema(schemaOf("mine", "ann", "mine"));
  for (let i = 0; i < 2; i++) void ask("ann");
  expect(clock.pending).toBe(1);
  flowControl.stop();
  expect(clock.pending).toBe(0);
});

test("lists are as wide as the last one was long", () => {
  const widths = new RequestWidths();
  const none = new URLSearchParams();
  expect(widths.of(listPods, none)).toBe(1);
  widths.learn(listPods, 450);
  expect(widths.of(listPods, none)).toBe(5);
  expect(widths.of(listPods, new URLSearchParams("limit=100"))).toBe(1);
  expect(widths.of(parseRequest("POST", "/api/v1/namespaces/x/pods", none)!, none)).toBe(1);
  expect(widths.of(parseRequest("GET", "/api/v1/namespaces/x/pods", none)!, none)).toBe(1);
  widths.learn(listPods, 100_000);
  expect(widths.of(listPods, none)).toBe(10);
  widths.learn(listPods, 3);
  expect(widths.of(listPods, none)).toBe(1);
});
