// Writes that depend on another key, on the built-in datastore; what nested transactions mean elsewhere is in test/conformance.
import { afterEach, beforeEach, expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { Backend, Compare } from "#datastore/backend.ts";
import { openDatastore } from "#datastore/open.ts";
import type { UnknownObject } from "#model/object.ts";
import { configMaps } from "#model/resources.ts";
import { serviceUnavailable } from "#model/status.ts";
import { FakeClock } from "#test/harness/fake-clock.ts";
import { DecodeCache, type Item } from "./codec.ts";
import { type Guard, guardsOf } from "./guard.ts";
import { ResourceStorage } from "./storage.ts";

const key = "/mote/claims/test/7";
let backend: Backend;
let storage: ResourceStorage;
let lease: number;
/** By the lease, as who leads has it, and by the revision, as who has claimed a number. */
let guards: readonly (readonly [string, Guard])[];

beforeEach(async () => {
  const clock = new FakeClock();
  backend = await openDatastore({ endpoint: "memory://" }, { clock, log: silentLogger });
  storage = new ResourceStorage(configMaps, { backend, cache: new DecodeCache(false), classOf: () => "durable" });
  lease = (await backend.grantLease(60)).id;
  const { revision } = await backend.commit({
    compares: [],
    success: [{ type: "put", key, value: new Uint8Array(0), lease }],
  });
  const claim: Compare = { key, target: "create", op: "=", value: revision };
  guards = [
    [
      "leads",
      guardsOf({ name: "a", groups: [], mustHold: () => ({ key, target: "lease", op: "=", value: lease }) })[0]!,
    ],
    ["claim", { compare: claim, refuse: () => serviceUnavailable("the claim is gone") }],
  ];
});
afterEach(() => backend.close());

const object = (name: string, text = ""): UnknownObject =>
  ({ kind: "ConfigMap", apiVersion: "v1", metadata: { name, namespace: "default" }, data: { text } }) as UnknownObject;
const create = (name: string, guard: Guard) => storage.create("default", name, object(name), [guard]);
const stored = async (name: string) => {
  const item = await storage.get("default", name);
  return item && (storage.decode(item)["data"] as { text: string }).text;
};

test("while all hold writes go through, and an object that has changed is no refusal", async () => {
  for (const [name, guard] of guards) {
    const made = (await create(name, guard))!;
    expect(await create(name, guard)).toBeUndefined();
    const next = (await storage.update(made, object(name, "next"), [guard]))!;
    expect(await storage.update(made, object(name, "old"), [guard])).toBeUndefined();
    expect(await stored(name)).toBe("next");
    expect(await storage.remove(made, [guard])).toBe(false);
    expect(await storage.remove(next, [guard])).toBe(true);
    expect(await stored(name)).toBeUndefined();
  }
});

/** The key goes; it goes and comes back as somebody else's. */
const losses: Readonly<Record<string, () => Promise<unknown>>> = {
  "its lease ends": () => backend.revokeLease(lease),
  "somebody else has it": async () => {
    await backend.revokeLease(lease);
    const other = await backend.grantLease(60);
    await backend.commit({ compares: [], success: [{ type: "put", key, value: new Uint8Array(0), lease: other.id }] });
  },
};

test.each(Object.keys(losses))("nothing is written once one does not hold: %s", async (how) => {
  const made = new Map<string, Item>();
  for (const [name, guard] of guards) made.set(name, (await create(name, guard))!);
  await losses[how]!();
  const before = backend.revision();
  for (const [name, guard] of guards) {
    const item = made.get(name)!;
    const refused = { code: 503 };
    await expect(create(`${name}-2`, guard)).rejects.toMatchObject(refused);
    await expect(create(name, guard)).rejects.toMatchObject(refused);
    await expect(storage.update(item, object(name, "late"), [guard])).rejects.toMatchObject(refused);
    await expect(storage.remove(item, [guard])).rejects.toMatchObject(refused);
    // Of several the one that does not hold is told of.
    const holds: Guard = {
      compare: { key: item.key, target: "mod", op: "=", value: item.modRevision },
      refuse: () => serviceUnavailable("the wrong one"),
    };
    const { message } = guard.refuse();
    await expect(storage.remove(item, [holds, guard])).rejects.toThrow(message);
  }
  expect(backend.revision()).toBe(before);
});
