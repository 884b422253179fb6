import { type Answer, decode, encode } from "dns-packet";
import { describe, expect, test } from "vitest";
import { compressed, emptyResponse, lifetimeOf, questionOf, recordsOf, replay } from "./message.ts";

const soa = {
  mname: "ns.example.org",
  rname: "admin.example.org",
  serial: 1,
  refresh: 2,
  retry: 3,
  expire: 4,
  minimum: 7,
};
const answers: Answer[] = [
  { type: "CNAME", name: "www.example.org", ttl: 50, data: "web.example.org" },
  { type: "A", name: "web.example.org", ttl: 40, data: "192.0.2.1" },
  {
    type: "SRV",
    name: "_a._b.example.org",
    ttl: 30,
    data: { priority: 1, weight: 2, port: 3, target: "web.example.org" },
  },
  { type: "TXT", name: "example.org", ttl: 60, data: [Buffer.from("text")] },
];
const message = encode({
  type: "response",
  id: 9,
  questions: [{ type: "A", name: "WWW.example.org" }],
  answers,
  authorities: [{ type: "SOA", name: "example.org", ttl: 20, data: soa }],
});

describe("dns messages as bytes", () => {
  test("compression changes the size and nothing else", () => {
    const small = compressed(message);
    expect(small.length).toBeLessThan(message.length * 0.75);
    expect(decode(small)).toEqual(decode(message));
    expect(recordsOf(small)?.map((r) => [r.type, r.ttl])).toEqual(recordsOf(message)?.map((r) => [r.type, r.ttl]));
  });

  test("lifetime is the smallest of TTLs and the SOA's minimum", () => {
    expect(lifetimeOf(message)).toBe(7);
    expect(
      lifetimeOf(encode({ type: "response", questions: [{ type: "A", name: "x" }], answers: answers.slice(0, 2) })),
    ).toBe(40);
    expect(lifetimeOf(encode({ type: "response", questions: [{ type: "A", name: "x" }] }))).toBe(0);
  });

  test("a replayed answer has the asker's id and spelling, and aged TTLs", () => {
    const query = encode({ type: "query", id: 77, questions: [{ type: "A", name: "www.EXAMPLE.org" }] });
    const aged = decode(replay(message, query, 45));
    expect([aged.id, aged.questions?.[0]?.name]).toEqual([77, "www.EXAMPLE.org"]);
    expect(aged.answers?.map((a) => "ttl" in a && a.ttl)).toEqual([5, 0, 0, 15]);
    expect(decode(message).answers?.[0]).toMatchObject({ ttl: 50 });
  });

  test("an empty response keeps question, id and the wish for recursion", () => {
    const query = encode({ type: "query", id: 5, flags: 0x100, questions: [{ type: "AAAA", name: "x.org" }] });
    expect(decode(emptyResponse(query, 2, { isTruncated: true }))).toMatchObject({
      id: 5,
      type: "response",
      rcode: "SERVFAIL",
      flag_rd: true,
      flag_tc: true,
      questions: [{ name: "x.org", type: "AAAA" }],
      answers: [],
    });
  });

  test("every message cut short is seen as such", () => {
    for (let length = 0; length < message.length; length++) {
      expect(recordsOf(message.subarray(0, length)), `first ${length} bytes`).toBeUndefined();
    }
    expect(questionOf(Buffer.alloc(0))).toBeUndefined();
  });
});
