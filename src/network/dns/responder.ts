// One DNS query in, one response out: the cluster's own names answered here, the rest forwarded. Fits the answer to what
// the client can take. Never throws for what a client sent.
import { type Answer, decode, encode, type RecordType } from "dns-packet";
import type { Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import { answerFor, type ClusterView, soaOf, type ZoneAnswer, type ZoneOptions } from "./cluster-zone.ts";
import type { Forwarder } from "./forwarder.ts";
import {
  compressed,
  ednsOf,
  emptyResponse,
  headerSize,
  isResponse,
  opcodeOf,
  questionOf,
  rcodes,
  recordsOf,
} from "./message.ts";

export interface ResponderDeps {
  readonly view: ClusterView;
  readonly zone: () => ZoneOptions;
  readonly forwarder: Forwarder;
  readonly random: Random;
  readonly log: Logger;
}

export interface Responder {
  /** Undefined where silence is the right answer (garbage, responses). `maxBytes`: what the transport carries at most. */
  respond(query: Buffer, transport: "udp" | "tcp"): Promise<Buffer | undefined>;
}

/** Without EDNS (RFC 1035); with it clients say more, of which this much passes without fragments. */
const plainUdpBytes = 512;
const ednsUdpBytes = 1232;
const tcpBytes = 65_535;
const classIn = 1;
const flags = { authoritative: 1 << 10, truncated: 1 << 9, recursionDesired: 1 << 8, recursionAvailable: 1 << 7 };
/** A CNAME may lead to another of our own: at most this far. */
const maxFollows = 8;

export function createResponder(deps: ResponderDeps): Responder {
  const { forwarder, log, random, view } = deps;

  /** Records for a name, wherever they are: for what an ExternalName points at. */
  const follow = async (name: string, type: RecordType, depth: number): Promise<readonly Answer[]> => {
    if (depth >= maxFollows) return [];
    const own = answerFor({ name, type }, view, deps.zone());
    if (own) return own.follow ? [...own.answers, ...(await follow(own.follow, type, depth + 1))] : own.answers;
    const query = encode({ type: "query", id: 0, flags: flags.recursionDesired, questions: [{ type, name }] });
    const response = await forwarder.ask(query);
    if (!response) return [];
    return decode(response).answers ?? [];
  };

  const own = async (query: Buffer, zoneAnswer: ZoneAnswer, type: RecordType, maxBytes: number): Promise<Buffer> => {
    const answers = [...zoneAnswer.answers];
    if (zoneAnswer.follow) answers.push(...(await follow(zoneAnswer.follow, type, 0)));
    else shuffle(answers, random);
    return encodeWithin(query, zoneAnswer, answers, deps.zone(), maxBytes);
  };

  return {
    async respond(query, transport) {
      if (query.length < headerSize || isResponse(query)) return undefined;
      if (opcodeOf(query) !== 0) return emptyResponse(query, rcodes.notImplemented, { isTruncated: false });
      const question = questionOf(query);
      if (!question || !recordsOf(query)) return emptyResponse(query, rcodes.formatError, { isTruncated: false });
      const udpBytes = Math.min(Math.max(ednsOf(query)?.udpSize ?? plainUdpBytes, plainUdpBytes), ednsUdpBytes);
      const maxBytes = transport === "tcp" ? tcpBytes : udpBytes;
      try {
        if (question.class === classIn) {
          const asked = decode(query).questions?.[0];
          const zoneAnswer = asked && answerFor(asked, view, deps.zone());
          if (asked && zoneAnswer) return await own(query, zoneAnswer, asked.type, maxBytes);
        }
        const response = await forwarder.ask(query);
        if (!response) return emptyResponse(query, rcodes.serverFailure, { isTruncated: false });
        return response.length > maxBytes ? emptyResponse(query, rcodes.noError, { isTruncated: true }) : response;
      } catch (error) {
        log.debug("question could not be answered", {
          name: question.name,
          type: question.type,
          error: messageOf(error),
        });
        return emptyResponse(query, rcodes.serverFailure, { isTruncated: false });
      }
    },
  };
}

/** Drops additional records first, then answers with the truncation mark, until the message fits. */
function encodeWithin(
  query: Buffer,
  zoneAnswer: ZoneAnswer,
  answers: readonly Answer[],
  zone: ZoneOptions,
  maxBytes: number,
): Buffer {
  const request = decode(query);
  const edns = ednsOf(query);
  const rcode = zoneAnswer.status === "noName" ? rcodes.nameError : rcodes.noError;
  const opt: Answer[] = edns
    ? [
        {
          type: "OPT",
          name: ".",
          udpPayloadSize: ednsUdpBytes,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0,
          flag_do: false,
          options: [],
        },
      ]
    : [];
  let kept = answers.length;
  let extras = zoneAnswer.additionals.length;
  for (;;) {
    const isCut = kept < answers.length;
    const full = encode({
      type: "response",
      id: request.id ?? 0,
      flags:
        flags.authoritative |
        (isCut ? flags.truncated : 0) |
        (request.flag_rd ? flags.recursionDesired : 0) |
        flags.recursionAvailable |
        rcode,
      questions: request.questions ?? [],
      answers: answers.slice(0, kept),
      authorities: answers.length === 0 ? [soaOf(zone)] : [],
      additionals: [...zoneAnswer.additionals.slice(0, extras), ...opt],
    });
    const message = compressed(full);
    if (message.length <= maxBytes || (kept === 0 && extras === 0)) return message;
    if (extras > 0) extras = 0;
    // Large headless services: step by a tenth rather than one by one.
    else kept -= Math.max(1, Math.floor(kept / 10));
  }
}

/** Another order each time spreads clients that always take the first address. */
function shuffle(answers: Answer[], random: Random): void {
  for (let i = answers.length - 1; i > 0; i--) {
    const j = Math.floor(random.float() * (i + 1));
    [answers[i], answers[j]] = [answers[j]!, answers[i]!];
  }
}
